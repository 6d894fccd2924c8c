-- Guarded steps: see Add in net/engine.py. Answers how many were applied.
--
-- ARGV[1]  a list of {now or false, since, until, subjects, id, time to the limit or 0, row or false, expected row or false,
--          marks, totals}. A subject is {name, version, sum, ...}, a sum {account, spent, held, model, most or false,
--          most spent or false, known spent or false, known held}, a total {name, day, model, sums}

if leased() then
    return -1
end

-- Without rounding: a sum that a double does not hold is above any limit.
local function within(spent, held, sum)
    if sum[7] and (spent ~= sum[7] or held ~= sum[8]) then
        return false
    end
    spent, held = tonumber(spent), tonumber(held)
    if sum[5] and (spent >= EXACT * 2 or spent + held >= EXACT * 2 or spent + held + sum[3] + sum[2] > sum[5]) then
        return false
    end
    return not sum[6] or spent + sum[2] <= sum[6]
end

local function fits(add, now)
    if now < add[2] or now >= add[3] then
        return false
    end
    for _, subject in ipairs(add[4]) do
        local fields = {'v'}
        for place = 3, #subject do
            fields[2 * place - 4], fields[2 * place - 3] = 's' .. subject[place][1], 'h' .. subject[place][1]
        end
        local found = call('HMGET', ROOT .. ':n:' .. subject[1], unpack(fields))
        if (found[1] or '0') ~= subject[2] then
            return false
        end
        for place = 3, #subject do
            local spent, held = found[2 * place - 4], found[2 * place - 3]
            if not spent or not within(spent, held, subject[place]) then
                return false
            end
        end
    end
    local row = call('HGET', ROOT .. ':b', add[5])
    return row == add[8] and (row or not call('ZSCORE', ROOT .. ':z', add[5]))
end

local function add_sums(key, account, spent, held, model)
    if held ~= 0 then
        call('HINCRBY', key, 'h' .. account, held)
    end
    if spent ~= 0 then
        call('HINCRBY', key, 's' .. account, spent)
        if call('HINCRBY', key, 'm' .. account .. model, spent) == 0 then
            call('HDEL', key, 'm' .. account .. model)
        end
    end
end

-- The first write is one that a server without memory refuses: so it refuses the whole.
local function apply(add, now)
    local id, left, row, expected = add[5], add[6], add[7], add[8]
    call('ZADD', ROOT .. (left > 0 and ':l' or ':z'), now + left, id)
    if row then
        call('HSET', ROOT .. ':b', id, row)
    elseif expected then
        call('HDEL', ROOT .. ':b', id)
    end
    if expected and left == 0 then
        call('ZREM', ROOT .. ':l', id)
    end
    for _, subject in ipairs(add[4]) do
        local key = ROOT .. ':n:' .. subject[1]
        for place = 3, #subject do
            add_sums(key, unpack(subject[place], 1, 4))
        end
    end
    for _, mark in ipairs(add[9]) do
        call('ZADD', ROOT .. ':z', now, mark)
    end
    for _, total in ipairs(add[10]) do
        add_total(unpack(total))
    end
end

for place, add in ipairs(args) do
    local now = clock(add[1])
    if not fits(add, now) then
        return place - 1
    end
    apply(add, now)
end
return #args
