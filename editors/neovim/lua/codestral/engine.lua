--- What is suggested at the cursor right now: when the server is asked, when its answer still holds, when it is drawn.
---
--- There is one cursor, so there is one suggestion. While typing agrees with it nobody is asked.

local client = require('codestral.client')
local config = require('codestral.config')
local ghost = require('codestral.ghost')
local menu = require('codestral.menu')
local suggestions = require('codestral.suggestion')
local text = require('codestral.text')

local M = {}

local INVOKED, AUTOMATIC = 1, 2 -- LSP's InlineCompletionTriggerKind

---@class codestral.Engine
---@field list codestral.Suggestion[] the alternatives
---@field index integer of the one that is meant
---@field has_all boolean whether the server was asked for alternatives here
---@field is_visible boolean
local now = { list = {}, index = 0, has_all = false, is_visible = false }
local asked ---@type string? where the server was asked last
local cancel ---@type (fun())?
local timer = assert(vim.uv.new_timer())
local is_on = true

---@return codestral.Suggestion? suggestion, shown or hidden for a moment
function M.current()
  return now.list[now.index]
end

---@return integer[] cursor row and column in bytes, both from 0
local function cursor_of()
  local cursor = vim.api.nvim_win_get_cursor(0)
  return { cursor[1] - 1, cursor[2] }
end

local function place_of(bufnr, cursor)
  return ('%d %d %d %d'):format(bufnr, vim.api.nvim_buf_get_changedtick(bufnr), cursor[1], cursor[2])
end

local function is_inserting()
  return vim.api.nvim_get_mode().mode:sub(1, 1) == 'i'
end

--- Whether something is shown that still fits. Keys that come all at once are all handled before any event tells of the first.
---@return boolean
function M.is_visible()
  local suggestion = M.current()
  if not now.is_visible or not suggestion or suggestion.bufnr ~= vim.api.nvim_get_current_buf() then
    return false
  end
  local how = suggestions.follow(suggestion, cursor_of())
  return how == 'same' or how == 'further'
end

---@param bufnr integer
---@return boolean
function M.is_on(bufnr)
  local own = vim.b[bufnr].codestral_enabled
  if own == nil then
    return is_on
  end
  return own == true
end

--- Switches suggestions on or off, in a buffer or in all that have no switch of their own.
---@param value boolean
---@param bufnr? integer
function M.set_on(value, bufnr)
  if bufnr then
    vim.b[bufnr].codestral_enabled = value
  else
    is_on = value
  end
  M.clear()
end

local function cancel_request()
  timer:stop()
  if cancel then
    cancel()
    cancel = nil
  end
end

local function hide()
  local suggestion = M.current()
  if suggestion then
    ghost.clear(suggestion.bufnr)
  end
  now.is_visible = false
end

--- Forgets the suggestion. The same place is not asked for again, unless `asked` is forgotten too.
local function drop()
  hide()
  now = { list = {}, index = 0, has_all = false, is_visible = false }
end

--- Nothing is shown, asked or waited for.
function M.clear()
  cancel_request()
  drop()
  asked = nil
end

--- The same after the server has died.
function M.clear_all()
  cancel = nil
  M.clear()
end

local function draw()
  local suggestion = M.current()
  if config.values.hide_for_menu and menu.is_open() then
    return hide()
  end
  local is_counted = config.values.show_count and now.has_all
  ghost.draw(suggestion.bufnr, cursor_of(), {
    rest = suggestions.rest(suggestion),
    tail = suggestion.tail,
    after = suggestion.after,
    count = is_counted and (' (%d/%d)'):format(now.index, #now.list) or nil,
  })
  now.is_visible = true
  if not suggestion.is_told then
    suggestion.is_told = true
    client.notify('textDocument/didShowCompletion', { item = suggestion.item })
  end
end

--- What of an answer can be shown here, equal texts once.
local function usable(result, bufnr, cursor, encoding)
  local found, seen = {}, {}
  for _, item in ipairs(type(result) == 'table' and (result.items or result) or {}) do
    local suggestion = suggestions.new(bufnr, item, encoding, cursor)
    if suggestion and not seen[suggestion.full] then
      seen[suggestion.full] = true
      found[#found + 1] = suggestion
    end
  end
  return found
end

--- Alternatives have come: the one that is shown keeps its place in mind, and the next one is taken.
local function take_alternatives(found, step)
  local shown = M.current()
  local rest = shown and suggestions.rest(shown)
  local at = 0
  for i, suggestion in ipairs(found) do
    if suggestions.rest(suggestion) == rest then
      at, suggestion.is_told = i, shown.is_told
    end
  end
  if shown and at == 0 then
    table.insert(found, 1, shown)
    at = 1
  end
  hide()
  local index = shown and (at - 1 + step) % #found + 1 or 1
  now = { list = found, index = index, has_all = true, is_visible = false }
  draw()
end

local function on_answer(err, result, asking)
  cancel = nil
  local bufnr = vim.api.nvim_get_current_buf()
  if err or not is_inserting() or bufnr ~= asking.bufnr or place_of(bufnr, cursor_of()) ~= asking.place then
    return
  end
  local found = usable(result, bufnr, cursor_of(), client.encoding())
  if asking.kind == INVOKED then
    if #found > 0 then
      return take_alternatives(found, asking.step)
    end
    return vim.api.nvim_echo({ { 'codestral: no suggestion here' } }, false, {})
  end
  drop()
  if #found > 0 then
    now = { list = { found[1] }, index = 1, has_all = false, is_visible = false }
    draw()
  end
end

local function send(asking)
  local bufnr, cursor = asking.bufnr, cursor_of()
  if not is_inserting() or vim.api.nvim_get_current_buf() ~= bufnr or place_of(bufnr, cursor) ~= asking.place then
    return
  end
  local line = vim.api.nvim_get_current_line()
  cancel = client.request(bufnr, {
    textDocument = { uri = vim.uri_from_bufnr(bufnr) },
    position = { line = cursor[1], character = text.column_of(line, cursor[2], client.encoding()) },
    context = { triggerKind = asking.kind },
  }, function(err, result)
    on_answer(err, result, asking)
  end)
  if not cancel then
    asked = nil -- no server yet: it says when it is there
  end
end

local function ask(kind, step)
  cancel_request()
  local bufnr = vim.api.nvim_get_current_buf()
  local asking = { bufnr = bufnr, kind = kind, step = step, place = place_of(bufnr, cursor_of()) }
  asked = asking.place
  if kind == INVOKED or config.values.debounce_ms == 0 then
    return send(asking)
  end
  timer:start(
    config.values.debounce_ms,
    0,
    vim.schedule_wrap(function()
      send(asking)
    end)
  )
end

--- Looks at the buffer and the cursor after whatever has happened to them.
function M.refresh()
  local bufnr = vim.api.nvim_get_current_buf()
  if config.values.render ~= 'extmark' or not is_inserting() or not client.is_attached(bufnr) or not M.is_on(bufnr) then
    return M.clear()
  end
  local cursor = cursor_of()
  local place = place_of(bufnr, cursor)
  if asked and asked ~= place then
    cancel_request() -- at once, not when the next one is sent: the server stops working for nobody
  end
  local suggestion = M.current()
  if suggestion then
    local how = suggestion.bufnr == bufnr and suggestions.follow(suggestion, cursor) or 'other'
    if how == 'same' or how == 'further' then
      return draw()
    end
    if how == 'back' then
      client.notify('textDocument/didRejectCompletion', { item = suggestion.item })
    end
    drop()
  end
  menu.watch(M.refresh)
  if asked == place or vim.fn.reg_executing() ~= '' then
    return
  end
  if config.values.hide_for_menu and menu.is_open() then
    asked = nil
    return
  end
  ask(AUTOMATIC)
end

--- Draws again where the window has changed.
function M.redraw()
  if M.is_visible() then
    draw()
  end
end

--- Steps through the alternatives; asks for them where nobody has, which is what asks for a suggestion by name too.
---@param step integer 1 or -1
---@return boolean whether there was something to do
function M.step(step)
  local bufnr = vim.api.nvim_get_current_buf()
  if not is_inserting() or not client.is_attached(bufnr) then
    return false
  end
  if not (M.is_visible() and now.has_all) then
    ask(INVOKED, step)
    return true
  end
  local cursor = cursor_of()
  for _ = 1, #now.list do
    hide()
    now.index = (now.index - 1 + step) % #now.list + 1
    local how = suggestions.follow(M.current(), cursor)
    if how ~= 'other' and how ~= 'done' then
      break -- the others do not agree with what was typed since
    end
  end
  draw()
  return true
end

--- The user does not want it, and will not be asked again at this place.
---@return boolean
function M.dismiss()
  local suggestion = M.current()
  if not suggestion or not M.is_visible() then
    return false
  end
  client.notify('textDocument/didRejectCompletion', { item = suggestion.item })
  cancel_request()
  drop()
  asked = place_of(suggestion.bufnr, cursor_of())
  return true
end

--- Has a piece of the suggestion inserted, and keeps what is left of it on the screen.
---@param insert fun(suggestion: codestral.Suggestion, cursor: integer[])
function M.accept(insert)
  local suggestion = assert(M.current())
  hide()
  insert(suggestion, cursor_of())
  local how = suggestions.follow(suggestion, cursor_of())
  if how == 'further' then
    client.notify('textDocument/didPartiallyAcceptCompletion', {
      item = suggestion.item,
      acceptedLength = suggestions.accepted_length(suggestion),
    })
    return draw()
  end
  cancel_request()
  drop()
  local command = suggestion.item.command
  if how == 'done' and type(command) == 'table' then
    client.execute(command.command, command.arguments or {})
  end
end

return M
