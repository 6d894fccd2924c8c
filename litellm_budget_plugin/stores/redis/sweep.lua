-- Sweep, in bounded rounds.
-- needs: closing
--
-- KEYS[1]  the project's root
-- ARGV[1]  JSON: [now, marks kept, days kept]
-- Reply    {expired, forgotten, folded, 1 if more is to be done}

local MARKS, SUBJECTS = 2000, 100
local now, marks_kept, days_kept = unpack(cjson.decode(ARGV[1]))

-- Before anything else, for it makes room.
local function forget(before)
    local ids = call('ZRANGEBYSCORE', ROOT .. ':c', '-inf', '(' .. string.format('%.0f', before), 'LIMIT', 0, MARKS)
    if #ids > 0 then
        call('HDEL', ROOT .. ':h', unpack(ids))
        call('ZREM', ROOT .. ':c', unpack(ids))
    end
    return #ids
end

-- Adds a subject's totals of earlier days to day 0. Returns how many rows went.
local function fold(name, before_day)
    local key = ROOT .. ':u:' .. name
    local rows, sums, old, oldest = call('HGETALL', key), {}, {}, nil
    for place = 1, #rows, 2 do
        local day, model = string.match(rows[place], '^(-?%d+):(.*)$')
        day = tonumber(day)
        if day > 0 and day < before_day then
            local sum, row = sums[model] or {0, 0, 0, 0, 0, 0}, cmsgpack.unpack(rows[place + 1])
            for column = 1, 6 do
                sum[column] = numbers.add(sum[column], row[column])
            end
            sums[model] = sum
            old[#old + 1] = rows[place]
        elseif day > 0 and (not oldest or day < oldest) then
            oldest = day
        end
    end
    for model, sum in pairs(sums) do
        local packed = call('HGET', key, '0:' .. model)
        if packed then
            for column, value in ipairs(cmsgpack.unpack(packed)) do
                sum[column] = numbers.add(sum[column], value)
            end
        end
        call('HSET', key, '0:' .. model, cmsgpack.pack(sum))
    end
    for first = 1, #old, 1000 do
        call('HDEL', key, unpack(old, first, math.min(#old, first + 999)))
    end
    if oldest then
        call('ZADD', ROOT .. ':d', oldest, name)
    else
        call('ZREM', ROOT .. ':d', name)
    end
    return #old
end

work.begin(now)
local forgotten = forget(work.now - marks_kept)
local expired = holding.expire_every()
if not expired then
    return {ROUND, forgotten, 0, 1}
end
work.save()
local folded, before_day = 0, math.floor((work.now - days_kept) / DAY)
local names = call('ZRANGEBYSCORE', ROOT .. ':d', 1, '(' .. before_day, 'LIMIT', 0, SUBJECTS)
for _, name in ipairs(names) do
    folded = folded + fold(name, before_day)
end
local more = forgotten == MARKS or #names == SUBJECTS
return {expired, forgotten, folded, more and 1 or 0}
