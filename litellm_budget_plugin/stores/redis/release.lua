-- Gives the lease of KEYS[1] back, that was used for reading only. ARGV[1]: the token.
if redis.call('GET', KEYS[1] .. ':lease') == ARGV[1] then redis.call('DEL', KEYS[1] .. ':lease') end
