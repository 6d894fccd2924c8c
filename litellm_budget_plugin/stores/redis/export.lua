-- Rows as they lie there, in a stable order: accounts by their subjects, open holds and marks by their times, totals by their
-- subjects.
-- needs: large, rare
--
-- KEYS[1]  the project's root
-- ARGV[1]  JSON: [kind, after, skip, how many about]; kind is one of the indexes s (accounts), o (open holds), c (marks) and t
--          (totals); after is a subject as it is written in keys, or a time, of which `skip` entries have been seen
-- Reply    {after, skip, row, ...}, after nil at the end of the kind. Rows: {scope, id, account, ...} as in read.lua;
--          {id, state, at, reply, model, day, amounts, floor, subjects, legs, charged}; {scope, id, day, model, spent, ...}

local kind, after, skip, most = unpack(cjson.decode(ARGV[1]))
local index, reply = ROOT .. ':' .. kind, {false, 0}

local function parts(name)
    local length, rest = string.match(name, '^(%d+):(.*)$')
    return string.sub(rest, 1, length), string.sub(rest, length + 2)
end

local function by_name()
    local names = call('ZRANGEBYLEX', index, after == '' and '-' or '(' .. after, '+', 'LIMIT', 0, most)
    for place, name in ipairs(names) do
        local scope, id = parts(name)
        if kind == 's' then
            reply[#reply + 1] = {scope, unpack(work.listed(work.subject(scope, id)))}
        else
            local rows = call('HGETALL', ROOT .. ':u:' .. name)
            for at = 1, #rows, 2 do
                local day, model = string.match(rows[at], '^(-?%d+):(.*)$')
                reply[#reply + 1] = {scope, id, tonumber(day), model, unpack(cmsgpack.unpack(rows[at + 1]))}
            end
        end
        if place == most or #reply > most then
            reply[1] = name
            return
        end
    end
end

local function by_time()
    local from = after == '' and '-inf' or after
    local found = call('ZRANGEBYSCORE', index, from, '+inf', 'WITHSCORES', 'LIMIT', skip, most)
    for place = 1, #found, 2 do
        local h = work.hold(found[place])
        reply[#reply + 1] = {h.id, h.state, h.at, h.reply, h.model, h.day, h.amounts, h.floor, h.subjects, h.legs, h.charged}
        if found[place + 1] == after then
            skip = skip + 1
        else
            after, skip = found[place + 1], 1
        end
    end
    if #found == 2 * most then
        reply[1], reply[2] = after, skip
    end
end

if kind == 's' or kind == 't' then
    by_name()
else
    by_time()
end
return reply
