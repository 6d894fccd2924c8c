-- Releases the lease of KEYS[1]. ARGV[1]: its token.
if redis.call('GET', KEYS[1] .. ':lease') == ARGV[1] then redis.call('DEL', KEYS[1] .. ':lease') end
