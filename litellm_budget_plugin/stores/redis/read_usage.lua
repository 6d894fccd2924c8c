-- ReadUsage: some totals as they lie there, subject by subject; the client sorts them.
-- needs: large, rare
--
-- KEYS[1]  the project's root
-- ARGV[1]  JSON: [scope, subject or false, since, until, after, how many rows about]
-- Reply    {last subject or nil at the end, {subject, day, model, spent, calls, input tokens, output tokens, refusals,
--          unsettled}, ...}

local scope, subject, since, till, after, most = unpack(cjson.decode(ARGV[1]))
local first = work.name(scope, '')
local reply = {false}

local function add(id)
    local rows = call('HGETALL', ROOT .. ':u:' .. first .. id)
    for place = 1, #rows, 2 do
        local day, model = string.match(rows[place], '^(-?%d+):(.*)$')
        if tonumber(day) >= since and tonumber(day) <= till then
            reply[#reply + 1] = {id, tonumber(day), model, unpack(cmsgpack.unpack(rows[place + 1]))}
        end
    end
    return #rows / 2
end

if subject then
    add(subject)
    return reply
end
local last = string.sub(first, 1, -2) .. ';'
local names = call('ZRANGEBYLEX', ROOT .. ':t', '(' .. first .. after, '(' .. last, 'LIMIT', 0, most)
local seen = 0
for place, name in ipairs(names) do
    local id = string.sub(name, #first + 1)
    seen = seen + 1 + add(id)
    if seen >= most or (place == #names and place == most) then
        reply[1] = id
        break
    end
end
return reply
