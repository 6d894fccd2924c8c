-- Adds totals of days from 1 to before a day to day 0, of some subjects. ARGV[1]: {day, how many rows about}.
-- Answer   {how many rows went, 1 if there are more}

if leased() then
    return -1
end
local before, most = unpack(args)

local function fold(name)
    local key, went, oldest = ROOT .. ':u:' .. name, {}, nil
    local found = call('HGETALL', key)
    for place = 1, #found, 2 do
        local sign, day, model = string.match(found[place], '^(%+?%d?)d(-?%d+):(.*)$')
        day = tonumber(day)
        if day and day > 0 and day < before and #went < most then
            if sign == '' then
                add_total(name, 0, model, {string.match(found[place + 1], '(%S+) (%S+) (%S+) (%S+) (%S+) (%S+)')})
            else
                call('HINCRBY', key, sign .. 'd0:' .. model, found[place + 1])
            end
            went[#went + 1] = found[place]
        elseif day and day > 0 and (not oldest or day < oldest) then
            oldest = day
        end
    end
    if oldest then
        call('ZADD', ROOT .. ':x', oldest, name)
    else
        call('ZREM', ROOT .. ':x', name)
    end
    if #went > 0 then
        call('HDEL', key, unpack(went))
    end
    local rows = 0
    for _, field in ipairs(went) do
        rows = rows + (string.sub(field, 1, 1) == 'd' and 1 or 0)
    end
    return rows, #found
end

local rows, seen = 0, 0
for _, name in ipairs(call('ZRANGEBYSCORE', ROOT .. ':x', 1, '(' .. before, 'LIMIT', 0, most)) do
    local went, looked = fold(name)
    rows, seen = rows + went, seen + looked
    if seen >= most then
        break
    end
end
return {rows, seen > 0 and 1 or 0}
