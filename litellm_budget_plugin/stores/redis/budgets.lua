-- What the changes of budgets have in common: core/budgets.py.
-- needs: applying, rolling

local budgets = {}

-- Whether the command has been applied before.
function budgets.known(id)
    return work.hold('command:' .. id) and true or false
end

function budgets.done(id)
    work.put_hold(work.new_hold('command:' .. id, 'done', work.now))
    work.save()
    return 1
end

-- Forgets a budget; money held on it stays held until its calls end.
function budgets.drop(account)
    if account.held == 0 then
        work.drop(account)
        return
    end
    applying.clear(account)
    account.pinned, account.blocked, account.limit = false, false, false
    account.raised_by, account.raised_until, account.carry_over, account.carried = 0, 0, 0, 0
    account.dropped = true
    work.stage(account)
end

-- A subject's accounts, of one model and window or (false) of any.
function budgets.matching(scope, id, model, window)
    local found = {}
    for _, account in ipairs(work.subject(scope, id).accounts) do
        if (not model or account.model == model) and (not window or account.window == window) then
            found[#found + 1] = account
        end
    end
    return found
end
