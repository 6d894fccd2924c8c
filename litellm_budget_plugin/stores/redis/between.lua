-- Returns holds of an index between two times, in the order of (time, id).
--
-- ARGV[1]  {token or false, index, min, max, how many to skip, how many}
-- Answer   {id, time, row, ...}, 0 if the lease is lost

local token, index, min, max, skip, most = unpack(args)

if token and call('GET', ROOT .. ':lease') ~= token then
    return 0
end
local found, reply = call('ZRANGEBYSCORE', ROOT .. index, min, max, 'WITHSCORES', 'LIMIT', skip, most), {}
for place = 1, #found, 2 do
    reply[#reply + 1], reply[#reply + 2] = found[place], found[place + 1]
    reply[#reply + 1] = call('HGET', ROOT .. ':b', found[place])
end
return reply
