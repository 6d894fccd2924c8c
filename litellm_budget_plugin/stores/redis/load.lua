-- Puts rows in place of those with the same keys.
-- needs: large, rare
--
-- KEYS[1]  the project's root
-- ARGV[1]  JSON: [[scope, id, account], ...], accounts as in read.lua but for their models, which are an object
-- ARGV[2]  JSON: [[hold, ...], [total, ...]], as in export.lua
-- Reply    1

local accounts, more = cjson.decode(ARGV[1]), cjson.decode(ARGV[2])

for _, row in ipairs(accounts) do
    local subject = work.subject(row[1], row[2])
    local account = work.account_of(subject, row[3])
    local old = work.account(subject, account.model, account.window, account.unit)
    if old then
        work.drop(old)
    end
    table.insert(subject.accounts, account)
    work.stage(account)
end
for _, r in ipairs(more[1]) do
    work.put_hold(work.new_hold(r[1], r[2], r[3], {reply = r[4], model = r[5], day = r[6], amounts = r[7],
        floor = r[8], subjects = r[9], legs = r[10], charged = r[11]}))
end
work.save()
for _, r in ipairs(more[2]) do
    local name, day = work.name(r[1], r[2]), r[3]
    call('HSET', ROOT .. ':u:' .. name, string.format('%.0f', day) .. ':' .. r[4], cmsgpack.pack({unpack(r, 5, 10)}))
    call('ZADD', ROOT .. ':t', 0, name)
    if day > 0 then
        call('ZADD', ROOT .. ':d', 'LT', day, name)
    end
end
return 1
