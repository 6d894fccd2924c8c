-- Which accounts a command names, and the opening of their windows: core/applying.py.
-- needs: rows, large, rare
--
-- A default is {scope, window, limit or false, model, unit, carry over}. A roll is {scope, id, model, window, unit,
-- old end or false, start, end or false}.

local MOST = 9007199254740991
local applying = {}

-- The limit without what was carried over or raised; false when there is none.
function applying.own_limit(account, default)
    if account.pinned then
        return account.limit
    end
    return default and default[3]
end

function applying.limit(account, default)
    local limit = applying.own_limit(account, default)
    if not limit then
        return false
    end
    local raised = work.now < account.raised_until and account.raised_by or 0
    return math.min(limit + account.carried + raised, MOST)
end

function applying.over(account)
    return account.stop and account.stop <= work.now
end

function applying.charge(account, amount, model)
    if amount == 0 then
        return
    end
    account.spent = numbers.add(account.spent, amount)
    local rest = numbers.add(account.models[model] or 0, amount)
    if rest == 0 then
        rest = nil
    end
    account.models[model] = rest
end

-- The account with an open window, made or rolled if need be; nil if that takes a roll that is not there.
function applying.open_window(subject, model, window, unit, default, rolls, command)
    local account = work.account(subject, model, window, unit)
    if account and not applying.over(account) then
        account.dropped = false
        return account
    end
    local roll = applying.roll_for(rolls, subject, model, window, unit)
    if roll and (roll[7] > work.now or (roll[8] and work.now >= roll[8])) then
        roll = nil
    end
    if account then
        if not roll or roll[6] ~= account.stop then
            return nil
        end
        applying.begin_window(account, roll[7], roll[8], default)
        work.stage(account)
    elseif window == 'none' then
        account = work.make(subject, model, window, unit, command, work.now, false)
    elseif roll and not roll[6] then
        account = work.make(subject, model, window, unit, command, roll[7], roll[8])
    else
        return nil
    end
    account.dropped = false
    return account
end

local function contains(list, wanted)
    for _, value in ipairs(list) do
        if value == wanted then
            return true
        end
    end
    return false
end

local function name(named, model, window, unit, default)
    for _, other in ipairs(named) do
        if other.model == model and other.window == window and other.unit == unit then
            other.default = default
            return
        end
    end
    named[#named + 1] = {model = model, window = window, unit = unit, default = default}
end

local function named_of(subject, models, defaults)
    local named, pinned = {}, {}
    for _, account in ipairs(subject.accounts) do
        if account.pinned then
            pinned[account.model .. '\0' .. account.unit] = true
        end
        if (account.pinned or account.blocked) and (account.model == '' or contains(models, account.model)) then
            name(named, account.model, account.window, account.unit, false)
        end
    end
    for _, default in ipairs(defaults) do
        if default[1] == subject.scope and not pinned[default[4] .. '\0' .. default[5]]
            and (default[4] == '' or contains(models, default[4])) then
            name(named, default[4], default[2], default[5], default)
        end
    end
    return named, pinned
end

local function add_legs(named, pinned, subject, hold)
    for _, leg in ipairs(hold.legs) do
        local owner = hold.subjects[leg[1]]
        if owner[1] == subject.scope and owner[2] == subject.id then
            local known = false
            for _, other in ipairs(named) do
                known = known or (other.model == leg[2] and other.window == leg[3] and other.unit == leg[4])
            end
            local account = work.account(subject, leg[2], leg[3], leg[4])
            if not known and account and not account.dropped and not pinned[leg[2] .. '\0' .. leg[4]] then
                name(named, leg[2], leg[3], leg[4], false)
            end
        end
    end
end

-- The accounts that apply, in the order of their keys, each {account = , default = , subject = place in subjects}, and
-- the windows that are new or over despite the rolls. `order` is the order of the subjects. The legs of `hold`, the hold
-- that is settled, apply too.
function applying.find(subjects, order, models, defaults, rolls, hold, command)
    local found, due = {}, {}
    for _, place in ipairs(order) do
        local subject = work.subject(subjects[place][1], subjects[place][2])
        local named, pinned = named_of(subject, models, defaults)
        if hold then
            add_legs(named, pinned, subject, hold)
        end
        if #named > 1 then
            table.sort(named, work.account_before)
        end
        for _, n in ipairs(named) do
            local account = applying.open_window(subject, n.model, n.window, n.unit, n.default, rolls, command)
            if account then
                found[#found + 1] = {account = account, default = n.default, subject = place}
            else
                due[#due + 1] = applying.roll_due(subject, n.model, n.window, n.unit)
            end
        end
    end
    return found, due
end

