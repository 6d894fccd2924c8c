-- Adds the totals of days from 1 to before a day to day 0, for some subjects. ARGV[1]: {day, about how many rows}.
-- Answer   {how many rows were folded, 1 if there may be more}

if leased() then
    return -1
end
local before, most = unpack(args)

-- The parts of a field's name: which of the six sums it is for ('' for all of them), its day and its model.
local function parts(field)
    local place, day, model = string.match(field, '^%+(%d)(-?%d+):(.*)$')
    if not place then
        place, day, model = '', string.match(field, '^(-?%d+):(.*)$')
    end
    return place, tonumber(day), model
end

local function fold(name)
    local key, went, rows, oldest = ROOT .. ':u:' .. name, {}, 0, nil
    local found = call('HGETALL', key)
    for at = 1, #found, 2 do
        local place, day, model = parts(found[at])
        if day > 0 and day < before and #went < most then
            if place == '' then
                add_total(name, 0, model, cmsgpack.unpack(found[at + 1]))
                rows = rows + 1
            else
                call('HINCRBY', key, '+' .. place .. '0:' .. model, found[at + 1])
            end
            went[#went + 1] = found[at]
        elseif day > 0 and (not oldest or day < oldest) then
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
