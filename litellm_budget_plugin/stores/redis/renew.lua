-- Renew: core/settling.py.
-- needs: closing
--
-- KEYS[1]  the project's root
-- ARGV[1]  JSON: [holds, now, lifetime]
-- Reply    {missing hold, ...}

local ids, now, lifetime = unpack(cjson.decode(ARGV[1]))
local missing = {}

work.begin(now)
for _, id in ipairs(ids) do
    local hold = work.hold(id)
    if not hold or hold.state ~= 'open' then
        missing[#missing + 1] = id
    elseif hold.at < work.now + lifetime then
        hold.at = work.now + lifetime
        work.put_hold(hold)
    end
end
holding.expire_few()
work.save()
return missing
