-- Windows that are new or over: core/applying.py and core/accounts.py.
-- needs: applying
-- lazily: applying

function applying.clear(account)
    account.spent, account.models, account.alerted, account.epoch = 0, {}, 0, account.epoch + 1
end

function applying.begin_window(account, start, stop, default)
    local limit = applying.own_limit(account, default)
    local cap = account.carry_over
    if not account.pinned and default then
        cap = default[6]
    end
    if not limit then
        account.carried = 0
    else
        local all = numbers.add(limit, account.carried)
        account.carried = math.min(cap, math.max(0, tonumber(numbers.sub(all, account.spent))))
        if account.stop and start > account.stop then
            account.carried = math.min(cap, tonumber(numbers.add(limit, account.carried)))
        end
    end
    account.start, account.stop = start, stop
    applying.clear(account)
end

-- The default that an account without a limit of its own follows.
function applying.default_of(account, defaults)
    if account.pinned then
        return false
    end
    for _, default in ipairs(defaults) do
        if default[1] == account.subject.scope and default[4] == account.model and default[2] == account.window
            and default[5] == account.unit then
            return default
        end
    end
    return false
end

function applying.roll_for(rolls, subject, model, window, unit)
    for place = #rolls, 1, -1 do
        local roll = rolls[place]
        if roll[1] == subject.scope and roll[2] == subject.id and roll[3] == model and roll[4] == window
            and roll[5] == unit then
            return roll
        end
    end
end

-- What the caller must know to compute the bounds.
function applying.roll_due(subject, model, window, unit)
    local account = work.account(subject, model, window, unit)
    return {subject.scope, subject.id, model, window, unit, account and account.start or false,
        account and account.stop or false}
end

function applying.roll_needed(due)
    return {'RollNeeded', work.now, unpack(due)}
end
