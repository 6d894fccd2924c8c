-- Runs when a store is opened. Checks that every command that the ledger uses exists and is permitted, and returns the version
-- of the ledger's keys on the server.
--
-- KEYS[1]  a root used only for this
-- ARGV[1]  the version of this client
-- Answer   the version of the keys: this client's, unless there is a higher one

local root, call = KEYS[1], redis.call
local text, hash, sorted = root .. ':text', root .. ':hash', root .. ':sorted'

call('TIME')
call('SET', text, 'value', 'NX', 'PX', 1000)
call('GET', text)
call('PEXPIRE', text, 1000)
call('PTTL', text)
call('RENAME', text, text)
call('HSET', hash, 'field', 'value')
call('HGET', hash, 'field')
call('HMGET', hash, 'field')
call('HGETALL', hash)
call('HRANDFIELD', hash, 1)
call('HINCRBY', hash, 'number', 1)
call('ZADD', sorted, 'LT', 1, 'member')
call('ZSCORE', sorted, 'member')
call('ZRANGEBYSCORE', sorted, '-inf', 1, 'LIMIT', 0, 1)
call('ZRANGEBYLEX', sorted, '-', '+', 'LIMIT', 0, 1)
call('ZREM', sorted, 'member')
call('HDEL', hash, 'field', 'number')
call('DEL', text)
local version = call('HGET', root .. ':version', 'keys')
if not version or tonumber(version) < tonumber(ARGV[1]) then
    version = ARGV[1]
    call('HSET', root .. ':version', 'keys', version)
end
return version
