-- Before anything else of a project that has no keys of this version yet: takes those of version 1 aside, and the lease to
-- bring their rows over. Their names are left to texts, so that scripts of version 1 fail.
--
-- KEYS[1]  the project's root
-- ARGV[1]  {token, milliseconds}
-- Answer   2 if nothing is to be brought over, 1 if the lease was taken, -1 if somebody else has it

local ROOT, call = KEYS[1], redis.call
local token, lasts = unpack(cjson.decode(ARGV[1]))
local MOVED = {a = '1a', h = '1h', s = 'i', o = 'l', c = 'z', t = 'w', d = 'x'}

-- nil, a text of ours or, of a key of version 1, an error.
local function said(key)
    return redis.pcall('GET', ROOT .. key)
end

local state = said(':a')
if state == '2' then
    return 2
end
-- First, for it is what a server without memory refuses: so it refuses the whole.
if not call('SET', ROOT .. ':lease', token, 'NX', 'PX', lasts) and said(':lease') ~= token then
    return -1
end
if state == '1' then
    return 1
end
state = '2'
for old, new in pairs(MOVED) do
    if type(said(':' .. old)) == 'table' then
        call('RENAME', ROOT .. ':' .. old, ROOT .. ':' .. new)
        state = '1'
    end
    call('SET', ROOT .. ':' .. old, 'moved')
end
call('SET', ROOT .. ':a', state)
if state == '2' then
    call('DEL', ROOT .. ':lease')
end
return tonumber(state)
