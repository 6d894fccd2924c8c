-- Deletes some of the marks that were closed before a time. ARGV[1]: {time, how many}. Returns how many it deleted.

if leased() then
    return -1
end
local ids = call('ZRANGEBYSCORE', ROOT .. ':z', '-inf', '(' .. string.format('%.0f', args[1]), 'LIMIT', 0, args[2])
if #ids > 0 then
    call('HDEL', ROOT .. ':b', unpack(ids))
    call('ZREM', ROOT .. ':z', unpack(ids))
end
return #ids
