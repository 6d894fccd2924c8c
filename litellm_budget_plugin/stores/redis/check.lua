-- Run when a store is opened: that every command that the ledger uses is there and permitted, and which version of the
-- ledger's keys the server has.
-- needs: numbers
--
-- KEYS[1]  a root of its own
-- ARGV[1]  JSON: the version of this client
-- Reply    the version of the keys: this client's, if there was none

local root, call = KEYS[1], redis.call
local hash, sorted = root .. ':a', root .. ':o'

call('TIME')
call('HSET', hash, 'field', cmsgpack.pack({1}))
call('HGET', hash, 'field')
call('HMGET', hash, 'field')
call('HGETALL', hash)
call('HDEL', hash, 'field')
call('ZADD', sorted, 'LT', 1, 'member')
call('ZSCORE', sorted, 'member')
call('ZRANGE', sorted, 0, -1)
call('ZRANGEBYSCORE', sorted, '-inf', 1, 'LIMIT', 0, 1)
call('ZRANGEBYLEX', sorted, '-', '+', 'LIMIT', 0, 1)
call('ZREM', sorted, 'member')
local version = call('HGET', root .. ':version', 'keys')
if not version then
    version = ARGV[1]
    call('HSET', root .. ':version', 'keys', version)
end
return version
