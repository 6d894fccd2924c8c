-- The beginning of most scripts. All of a project's keys begin with KEYS[1], its root, so that they share a hash slot:
--   :a     "2". Version 1 had accounts here, so its scripts fail. "1" while rows are upgraded
--   :lease the token of the transaction that changes rows; expires by itself
--   :n:SUBJECT  hash  a subject's version (v) and accounts: a letter and the account's key, see rows.py
--   :i     zset    subjects with accounts, by name       :b     hash    id -> open hold, or mark with content
--   :z     zset    marks by the time of closing          :l     zset    open holds by their time limit
--   :u:SUBJECT  hash  totals: DAY:MODEL -> six numbers; +NDAY:MODEL -> the part of the Nth that a double cannot hold
--   :w     zset    subjects with totals, by name         :x     zset    subjects by their oldest day
-- A subject is written LENGTH:scope:id, where LENGTH is the scope's bytes. ARGV[1] is JSON, ARGV[2] the required value of :a.
-- Every script returns -2 if :a has another value, and -1 if it must wait for a lease.

local ROOT, call, args = KEYS[1], redis.call, cjson.decode(ARGV[1])
if redis.pcall('GET', ROOT .. ':a') ~= (ARGV[2] or '2') then
    return -2
end

local EXACT = 2 ^ 52    -- below this, the sum of two numbers is exact

-- Whether there is a lease. It is cut to 10 seconds, in case the server's clock has jumped since it was taken.
local function leased()
    local left = call('PTTL', ROOT .. ':lease')
    if left > 10000 then
        call('PEXPIRE', ROOT .. ':lease', 10000)
    end
    return left ~= -2
end

-- The time in microseconds: a test's or, if that is false, the server's.
local function clock(now)
    local time = now or call('TIME')
    return now or time[1] * 1000000 + time[2]
end

-- `sums` are six numbers, as digits if a double does not hold one of them.
local function add_total(name, day, model, sums)
    local key, field = ROOT .. ':u:' .. name, day .. ':' .. model
    local recorded = call('HGET', key, field)
    local row = recorded and cmsgpack.unpack(recorded) or {0, 0, 0, 0, 0, 0}
    for place = 1, 6 do
        local sum = row[place] + sums[place]
        if sum <= -EXACT or sum >= EXACT then
            call('HINCRBY', key, '+' .. place .. field, row[place])
            call('HINCRBY', key, '+' .. place .. field, sums[place])
            sum = 0
        end
        row[place] = sum
    end
    call('HSET', key, field, cmsgpack.pack(row))
    if not recorded then
        call('ZADD', ROOT .. ':w', 0, name)
        if day > 0 then
            call('ZADD', ROOT .. ':x', 'LT', day, name)
        end
    end
end
