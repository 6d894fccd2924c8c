-- Writes a transaction's changes in one step.
--
-- ARGV[1]  {token, milliseconds to keep the lease or 0, {{command, key, argument, ...}, ...}, totals to add}. The first command
--          is one that a server without free memory refuses, so it refuses the whole step
-- Answer   1, or 0 if the lease is lost

local token, lasts, commands, totals = unpack(args)
local lease = ROOT .. ':lease'

if call('GET', lease) ~= token then
    return 0
end
for _, command in ipairs(commands) do
    call(command[1], ROOT .. command[2], unpack(command, 3))
end
for _, total in ipairs(totals) do
    add_total(unpack(total))
end
if lasts > 0 then
    call('PEXPIRE', lease, lasts)
else
    call('DEL', lease)
end
return 1
