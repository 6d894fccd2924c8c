-- Read: the accounts as they lie there; the client presents them.
-- needs: closing
--
-- KEYS[1]  the project's root
-- ARGV[1]  JSON: [now, scope, subject or false, after, page]
-- Reply    {now, last subject of a full page or nil, {subject, account, ...}, ...}; an account is an array in the order of
--          rows.lua, models as {model, amount, ...}

local now, scope, subject, after, page = unpack(cjson.decode(ARGV[1]))

work.begin(now)
holding.expire_few()
work.save()
local reply = {work.now, false}
if subject then
    reply[3] = work.listed(work.subject(scope, subject))
    return reply
end
local first = work.name(scope, '')
local last = string.sub(first, 1, -2) .. ';'       -- what follows the colon
local names = call('ZRANGEBYLEX', ROOT .. ':s', '(' .. first .. after, '(' .. last, 'LIMIT', 0, page)
for _, name in ipairs(names) do
    reply[#reply + 1] = work.listed(work.subject(scope, string.sub(name, #first + 1)))
end
if #names == page then
    reply[2] = string.sub(names[page], #first + 1)
end
return reply
