-- Taking holds off: what happens to held money when a hold is settled, released, replaced or expires: core/holding.py.
-- needs: applying

local holding = {}

local function change_held(account, amount)
    account.held = numbers.add(account.held, amount)
    if account.dropped and account.held == 0 then
        work.drop(account)
    else
        work.stage(account)
    end
end

local function hold_on_legs(hold, sign)
    for _, leg in ipairs(hold.legs) do
        local account = work.leg(hold, leg)
        if account then
            change_held(account, sign * hold.amounts[UNITS[leg[4]]])
        end
    end
end

local function changed(amounts, other, sign)
    return {amounts[1] + sign * other[1], amounts[2] + sign * other[2], amounts[3] + sign * other[3]}
end

-- The open hold that others may be nested under; a nested hold lends nothing itself.
function holding.lending_parent(id)
    local parent = id and id ~= '' and work.hold(id)
    return parent and parent.state == 'open' and not parent.parent and parent
end

-- Stages an open hold and puts its money on what is held, or on what its parent has lent.
function holding.put_on(hold)
    work.put_hold(hold)
    local parent = holding.lending_parent(hold.parent)
    if parent then
        parent.lent = changed(parent.lent, hold.amounts, 1)
        work.put_hold(parent)
    else
        hold_on_legs(hold, 1)
    end
end

local function free_children(parent)
    for _, id in ipairs(work.children(parent.id)) do
        local child = work.hold(id)
        if child and child.state == 'open' and child.parent == parent.id then
            child.parent = false
            work.put_hold(child)
            hold_on_legs(child, 1)
        end
    end
    parent.lent = {0, 0, 0}
end

-- Takes an open hold's money off what is held. The caller stages the hold's new state.
function holding.take_off(hold)
    local parent = holding.lending_parent(hold.parent)
    if hold.lent[1] ~= 0 or hold.lent[2] ~= 0 or hold.lent[3] ~= 0 then
        free_children(hold)
    end
    if parent then
        parent.lent = changed(parent.lent, hold.amounts, -1)
        work.put_hold(parent)
    else
        hold_on_legs(hold, -1)
    end
end

-- A charge under a parent hold comes out of the parent's money, as far as that is not lent to other children.
function holding.draw_from_parent(id, charge)
    local parent = holding.lending_parent(id)
    if not parent then
        return
    end
    local drawn = {}
    for unit = 1, 3 do
        local room = parent.amounts[unit] - parent.lent[unit]
        drawn[unit] = math.min(tonumber(charge[unit]), room)
    end
    parent.amounts = changed(parent.amounts, drawn, -1)
    work.put_hold(parent)
    for _, leg in ipairs(parent.legs) do
        local account = work.leg(parent, leg)
        if account then
            change_held(account, -drawn[UNITS[leg[4]]])
        end
    end
end

-- Takes back the floor that an expired hold was charged: from the windows that it went to, if they are still the same,
-- and from the totals in any case. Returns, by the rows' ids, what earlier windows keep.
function holding.refund_floor(hold)
    local kept, floor = {}, hold.floor
    for _, charged in ipairs(hold.charged) do
        local subject = hold.subjects[charged[1]]
        for _, account in ipairs(work.subject(subject[1], subject[2]).accounts) do
            if account.id == charged[2] and account.epoch == charged[3] then
                applying.charge(account, -floor[UNITS[account.unit]], hold.model)
                work.stage(account)
            elseif account.id == charged[2] then
                kept[charged[2]] = floor
            end
        end
    end
    for _, subject in ipairs(hold.subjects) do
        local day = hold.day
        if tonumber(work.unsettled(subject[1], subject[2], day, hold.model)) < 1 then
            day = 0
        end
        work.add_total(subject[1], subject[2], day, hold.model, {-floor[1], -floor[2], -floor[3], 0, 0, -1})
    end
    return kept
end

-- Releases a hold, whatever has become of it.
function holding.give_back(id)
    local hold = work.hold(id)
    if hold and hold.state ~= 'open' and hold.state ~= 'expired' then
        return
    end
    if hold and hold.state == 'open' then
        holding.take_off(hold)
    elseif hold then
        holding.refund_floor(hold)
    end
    work.put_hold(work.new_hold(id, 'released', work.now))
end

local function expire(hold)
    local floor = hold.floor
    holding.take_off(hold)
    holding.draw_from_parent(hold.parent, floor)
    hold.charged = {}
    for _, leg in ipairs(hold.legs) do
        local account = work.leg(hold, leg)
        if account then
            applying.charge(account, floor[UNITS[leg[4]]], hold.model)
            work.stage(account)
            table.insert(hold.charged, {leg[1], account.id, account.epoch})
        end
    end
    hold.state, hold.at, hold.day = 'expired', work.now, work.day
    work.put_hold(hold)
    for _, subject in ipairs(hold.subjects) do
        work.add_total(subject[1], subject[2], hold.day, hold.model, {floor[1], floor[2], floor[3], 0, 0, 1})
    end
end

local function expire_all(ids, spare)
    local expired = 0
    for _, id in ipairs(ids) do
        local hold = work.hold(id)
        if hold and hold.state == 'open' and hold.at <= work.now and id ~= spare then
            expire(hold)
            expired = expired + 1
        end
    end
    return expired
end

-- Expires a few due holds in passing.
function holding.expire_few(spare)
    return expire_all(work.due(DUE_BATCH), spare)
end

-- Expires every due hold. Returns how many; nil if there are too many for one run: then ROUND of them have been written
-- off, nothing else was changed, and the script is to answer {"Again"}.
function holding.expire_every(spare)
    local ids = work.due(ROUND + 1)
    if #ids <= ROUND then
        return expire_all(ids, spare)
    end
    work.restart()
    ids[#ids] = nil
    expire_all(ids, spare)
    work.save()
    return nil
end
