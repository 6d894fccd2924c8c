-- PutBudget: core/budgets.py.
-- needs: budgets
--
-- KEYS[1]  the project's root
-- ARGV[1]  JSON: {id, now, scope, subject, model, unit, only, rolls, and what is to be changed: window, limit (false: none),
--          blocked, raised_by, raised_until, carry_over, created_at, bounds [start, end or false], spent [[model, amount], ...]}
-- ARGV[2]  JSON: [default, ...]
-- Replies  1; {"RollNeeded", now, due}

local put, defaults = cjson.decode(ARGV[1]), cjson.decode(ARGV[2])
local subject       -- with its accounts

local function alike()
    local found = {}
    for _, account in ipairs(subject.accounts) do
        if account.model == put.model and account.unit == put.unit then
            found[#found + 1] = account
        end
    end
    return found
end

local function weight(account)
    local follows = applying.default_of(account, defaults)
    return (account.pinned and 0 or 4) + (follows and 0 or 2) + (account.dropped and 1 or 0)
end

-- The budget that counts now: the subject's own, else the one that follows a default, else any that is left.
local function current_of()
    local best
    for _, account in ipairs(alike()) do
        if not best or weight(account) < weight(best)
            or (weight(account) == weight(best) and work.account_before(account, best)) then
            best = account
        end
    end
    return best
end

local function target_window(current)
    if put.window then
        return put.window
    elseif current then
        return current.window
    end
    for _, default in ipairs(defaults) do
        if default[1] == put.scope and default[4] == put.model and default[5] == put.unit then
            return default[2]
        end
    end
    return 'none'
end

-- The budget that becomes this one: the subject's one budget if it is to have another window, or the follower of a default
-- when the first limit of its own is given. Otherwise calls in flight would not be seen by the new limit.
local function taken_over(window, current)
    if not current or current.window == window then
        return nil
    elseif not put.only and (current.pinned or put.limit == nil) then
        return nil
    end
    local target = work.account(subject, put.model, window, put.unit)
    if target and not target.pinned and target.held == 0 and not applying.default_of(target, defaults) then
        work.drop(target)
        target = nil
    end
    if not target then
        return current
    end
end

local function opened(window)
    local account = work.account(subject, put.model, window, put.unit)
    if put.bounds then
        if not account then
            return work.make(subject, put.model, window, put.unit, 'P:' .. put.id, put.bounds[1], put.bounds[2])
        end
        account.start, account.stop, account.dropped = put.bounds[1], put.bounds[2], false
        return account
    end
    local default = account and applying.default_of(account, defaults)
    return applying.open_window(subject, put.model, window, put.unit, default, put.rolls, 'P:' .. put.id)
end

-- `account` goes on where `old` stands: its spend, its holds, its limit. Nothing that is held is lost.
local function take_over(account, old)
    account.id, account.epoch = old.id, old.epoch
    if applying.over(old) then
        account.epoch = account.epoch + 1
    else
        account.spent, account.models = old.spent, {}
        for model, amount in pairs(old.models) do
            account.models[model] = amount
        end
        account.alerted, account.alert_limit = old.alerted, old.alert_limit
    end
    account.held = old.held
    account.pinned, account.limit, account.blocked = old.pinned, old.limit, old.blocked
    account.raised_by, account.raised_until, account.carry_over = old.raised_by, old.raised_until, old.carry_over
    account.created_at = old.created_at
    for _, id in ipairs(work.open_holds()) do
        local hold, legs, found = work.hold(id), {}, false
        for place, leg in ipairs(hold.legs) do
            legs[place] = leg
            if work.leg(hold, leg) == old then
                legs[place], found = {leg[1], account.model, account.window, account.unit}, true
            end
        end
        if found then
            hold.legs = legs
            work.put_hold(hold)
        end
    end
    work.drop(old)
end

local function apply(account)
    if put.limit ~= nil then
        account.pinned, account.limit = true, put.limit
    end
    for _, field in ipairs({'blocked', 'raised_by', 'raised_until', 'carry_over', 'created_at'}) do
        if put[field] ~= nil then
            account[field] = put[field]
        end
    end
    if put.spent then
        applying.clear(account)
        for _, of in ipairs(put.spent) do
            applying.charge(account, of[2], of[1])
        end
    end
end

work.begin(put.now)
if budgets.known(put.id) then
    return 1
end
subject = work.subject(put.scope, put.subject)
local current = current_of()
local window = target_window(current)
local old = taken_over(window, current)
local account = opened(window)
if not account then
    return applying.roll_needed({applying.roll_due(subject, put.model, window, put.unit)})
end
if old then
    take_over(account, old)
end
if put.only then
    for _, other in ipairs(alike()) do
        if other ~= account then
            budgets.drop(other)
        end
    end
end
apply(account)
work.stage(account)
return budgets.done(put.id)
