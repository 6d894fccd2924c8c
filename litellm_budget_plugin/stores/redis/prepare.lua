-- Runs first for a project without keys of this version: renames the keys of version 1, and takes the lease for the upgrade of
-- their rows. Under the old names it puts texts, so that scripts of version 1 fail.
--
-- KEYS[1]  the project's root
-- ARGV[1]  {token, milliseconds}
-- Answer   2 if there is nothing to upgrade, 1 if the lease was taken, -1 if another process has it

local ROOT, call = KEYS[1], redis.call
local token, lasts = unpack(cjson.decode(ARGV[1]))
local MOVED = {a = '1a', h = '1h', s = 'i', o = 'l', c = 'z', t = 'w', d = 'x'}

-- The value of a key: nil, a text of this version, or an error table for a key of version 1.
local function said(key)
    return redis.pcall('GET', ROOT .. key)
end

local state = said(':a')
if state == '2' then
    return 2
end
-- The first write, because a server without free memory refuses it, and so the whole script.
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
