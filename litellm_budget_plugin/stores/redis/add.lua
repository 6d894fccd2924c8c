-- Applies guarded steps: see Add in net/engine.py. Returns how many were applied.
--
-- ARGV[1]  a list of {now or false, since, until, sums, holds, marks, totals}. A sum is {subject, version, account, spent, held,
--          model, most or false, known spent or false, known held}; only the first two if nothing is added, only the first six if
--          the sum is not bounded. A hold is {id, time to the limit (0 for a mark, false to keep the limit), row or false, expected
--          row or false}. A total is {subject, day, model, sums}

if leased() then
    return -1
end

-- Nothing is rounded: a sum that a double does not hold exactly is above any limit.
local function within(sum, spent, held)
    local most, known = sum[7], sum[8]
    if known and (spent ~= known or held ~= sum[9]) then
        return false
    end
    spent, held = tonumber(spent), tonumber(held)
    return not most or spent < EXACT * 2 and spent + held < EXACT * 2 and spent + held + sum[5] + sum[4] <= most
end

local function sum_fits(sum)
    local key, account = ROOT .. ':n:' .. sum[1], sum[3]
    if not account then
        return (call('HGET', key, 'v') or '0') == sum[2]
    end
    local found = call('HMGET', key, 'v', 's' .. account, 'h' .. account)
    return found[1] == sum[2] and found[2] and (#sum == 6 or within(sum, found[2], found[3]))
end

local function fits(add, now)
    if now < add[2] or now >= add[3] then
        return false
    end
    for _, sum in ipairs(add[4]) do
        if not sum_fits(sum) then
            return false
        end
    end
    for _, hold in ipairs(add[5]) do
        local row = call('HGET', ROOT .. ':b', hold[1])
        if row ~= hold[4] or not row and call('ZSCORE', ROOT .. ':z', hold[1]) then
            return false
        end
    end
    return true
end

local function add_sum(name, _, account, spent, held, model)
    local key = ROOT .. ':n:' .. name
    if held and held ~= 0 then
        call('HINCRBY', key, 'h' .. account, held)
    end
    if spent and spent ~= 0 then
        call('HINCRBY', key, 's' .. account, spent)
        if call('HINCRBY', key, 'm' .. account .. model, spent) == 0 then
            call('HDEL', key, 'm' .. account .. model)
        end
    end
end

local function put_hold(now, id, left, row, expected)
    if left then
        call('ZADD', ROOT .. (left > 0 and ':l' or ':z'), now + left, id)
    end
    if row then
        call('HSET', ROOT .. ':b', id, row)
    elseif expected then
        call('HDEL', ROOT .. ':b', id)
    end
    if expected and left == 0 then
        call('ZREM', ROOT .. ':l', id)
    end
end

-- The first write is one that a server without free memory refuses, so it refuses the whole step.
local function apply(add, now)
    for _, hold in ipairs(add[5]) do
        put_hold(now, unpack(hold))
    end
    for _, sum in ipairs(add[4]) do
        add_sum(unpack(sum))
    end
    for _, mark in ipairs(add[6]) do
        call('ZADD', ROOT .. ':z', now, mark)
    end
    for _, total in ipairs(add[7]) do
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
