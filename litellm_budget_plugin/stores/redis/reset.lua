-- Reset: core/budgets.py.
-- needs: budgets
--
-- KEYS[1]  the project's root
-- ARGV[1]  JSON: [id, now, scope, subject, model or false, window or false]
-- Reply    1

local id, now, scope, subject, model, window = unpack(cjson.decode(ARGV[1]))

work.begin(now)
if budgets.known(id) then
    return 1
end
for _, account in ipairs(budgets.matching(scope, subject, model, window)) do
    -- A window that has ended counts as empty already, and what it left is still to be carried over.
    if not applying.over(account) then
        applying.clear(account)
        work.stage(account)
    end
end
return budgets.done(id)
