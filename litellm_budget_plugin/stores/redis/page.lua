-- Returns subjects of an index with their hashes, in the order of their names.
--
-- ARGV[1]  {now or false, index, prefix of the hashes' keys, min, max, how many, about how many fields, since, until}.
--          `since` and `until` are days of totals, and false for other hashes
-- Answer   {now, 1 if a hold is due, the last name or nil at the end, {name, {field, value, ...}}, ...}

local now, index, hashes, min, max, most, fields, since, till = unpack(args)

-- The totals of some days.
local function totals(found)
    local some = {}
    for place = 1, #found, 2 do
        local more, day = string.match(found[place], '^(%+?)%d?(-?%d+):')
        if more == '' then
            day = string.match(found[place], '^(-?%d+):')
        end
        day = tonumber(day)
        if day >= since and day <= till then
            some[#some + 1] = found[place]
            some[#some + 1] = more == '' and cmsgpack.unpack(found[place + 1]) or found[place + 1]
        end
    end
    return some
end

now = clock(now)
local reply = {now, #call('ZRANGEBYSCORE', ROOT .. ':l', '-inf', now, 'LIMIT', 0, 1), false}
local names, seen = call('ZRANGEBYLEX', ROOT .. index, min, max, 'LIMIT', 0, most), 0
for place, name in ipairs(names) do
    local found = call('HGETALL', ROOT .. hashes .. name)
    seen = seen + #found / 2
    reply[place + 3] = {name, since and totals(found) or found}
    if place == most or seen >= fields then
        reply[3] = name
        break
    end
end
return reply
