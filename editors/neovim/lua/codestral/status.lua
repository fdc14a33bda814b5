--- What the server says of itself, for a status line and for people. Knows no buffer and asks nobody.
---
--- A fault is told once; it never becomes a message for every key.

local M = {}

---@class codestral.Status
---@field state string starting, loading, reading, ready, thinking, off, paused, error; ours beside them: none, failed
---@field message? string
---@field kind? string
---@field percent? integer
---@field reason? string
---@field command? table

---@type codestral.Status
M.current = { state = 'none' }

local told = {} ---@type table<string, boolean>
local has_reports = false -- whether this server sends didChangeStatus

---@param new codestral.Status
function M.set(new)
  if vim.deep_equal(new, M.current) then
    return
  end
  M.current = new
  vim.schedule(function()
    pcall(vim.api.nvim_exec_autocmds, 'User', { pattern = 'CodestralStatus', modeline = false, data = M.current })
    vim.cmd.redrawstatus()
  end)
end

--- `didChangeStatus`, named and shaped as the Copilot language server does, with a field of ours.
function M.handler(_, params)
  if type(params) ~= 'table' then
    return
  end
  local ours = type(params.codestral) == 'table' and params.codestral or {}
  has_reports = true
  M.set({
    state = ours.state or (params.busy and 'thinking' or 'ready'),
    message = params.message ~= '' and params.message or nil,
    kind = params.kind,
    percent = ours.percent,
    reason = ours.reason,
    command = type(params.command) == 'table' and params.command or nil,
  })
  if params.kind == 'Error' and params.message and params.message ~= '' then
    M.tell(params.message, vim.log.levels.ERROR)
  end
end

--- The server has answered `initialize`. One that reports goes on from here; one that does not is ready.
function M.initialized()
  if not has_reports then
    M.set({ state = 'ready' })
  end
end

--- There will be no suggestions until the user does something.
---@param message string
function M.fail(message)
  M.set({ state = 'failed', message = message, kind = 'Error' })
  M.tell(message, vim.log.levels.WARN)
end

--- A message that is the same as one before is not shown again. It should fit 80 columns, or the user has to press Enter.
---@param message string
---@param level integer
function M.tell(message, level)
  if told[message] then
    return
  end
  told[message] = true
  vim.schedule(function()
    vim.notify('codestral: ' .. message, level)
  end)
end

function M.reset()
  told, has_reports = {}, false
  M.set({ state = 'none' })
end

--- For a status line: short, "" where nothing runs, and no % sign, which status lines take for something else.
---@param is_on boolean whether suggestions are on in the buffer
---@return string
function M.line(is_on)
  local current = M.current
  if current.state == 'none' then
    return ''
  end
  if not is_on and current.state ~= 'failed' then
    return 'codestral off'
  end
  local words = {
    starting = 'codestral starting',
    loading = 'codestral loading',
    reading = current.percent and ('codestral reading %d of 100'):format(current.percent) or 'codestral reading',
    ready = 'codestral',
    thinking = 'codestral ...',
    off = 'codestral off',
    paused = 'codestral paused',
    error = 'codestral error',
    failed = 'codestral error',
  }
  return words[current.state] or 'codestral'
end

--- One or two sentences.
---@return string
function M.sentence()
  local current = M.current
  local words = { current.state }
  if current.percent then
    words[#words + 1] = ('%d %%'):format(current.percent)
  end
  local text = table.concat(words, ' ')
  local why = current.message or current.reason
  if current.message and current.reason and not current.message:find(current.reason, 1, true) then
    why = current.message .. ' (' .. current.reason .. ')'
  end
  return why and (text .. ': ' .. why) or text
end

return M
