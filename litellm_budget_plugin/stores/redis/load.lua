-- Returns rows of a project, for reading only or for a transaction.
--
-- ARGV[1]  {now or false, token or false, milliseconds or 0, names of subjects, ids of holds, {{name, day, model}, ...}}.
--          With milliseconds, the lease is taken for that long; with only a token, the lease must still exist
-- Answer   {now, 1 if a hold is due, {field, value, ...} of each subject, {time, row} of each hold, {field, value, ...} of each total},
--          0 if the lease is lost

local now, token, lasts, subjects, holds, totals = unpack(args)
local lease = ROOT .. ':lease'

if token and lasts > 0 then
    -- Our own token is here if the answer to an earlier attempt of this request was lost.
    if leased() and call('GET', lease) ~= token then
        return -1
    end
    call('SET', lease, token, 'PX', lasts)
elseif token and call('GET', lease) ~= token then
    return 0
end
now = clock(now)
local reply = {now, #call('ZRANGEBYSCORE', ROOT .. ':l', '-inf', now, 'LIMIT', 0, 1)}
for _, name in ipairs(subjects) do
    reply[#reply + 1] = call('HGETALL', ROOT .. ':n:' .. name)
end
for _, id in ipairs(holds) do
    local at = call('ZSCORE', ROOT .. ':l', id) or call('ZSCORE', ROOT .. ':z', id)
    reply[#reply + 1] = {at, call('HGET', ROOT .. ':b', id)}
end
for _, total in ipairs(totals) do
    local name, day, model = unpack(total)
    local field, found = day .. ':' .. model, {}
    for place = 0, 6 do
        local some = place == 0 and field or '+' .. place .. field
        local value = call('HGET', ROOT .. ':u:' .. name, some)
        if value then
            found[#found + 1], found[#found + 2] = some, place == 0 and cmsgpack.unpack(value) or value
        end
    end
    reply[#reply + 1] = found
end
return reply
