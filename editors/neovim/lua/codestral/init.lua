--- What users call. `setup` is optional: plugin/codestral.lua starts everything when the first file is opened.

local M = {}

local config = require('codestral.config')

local is_started = false

local function engine()
  return require('codestral.engine')
end

local function native()
  return config.values.render == 'native' and require('codestral.native') or nil
end

--- Reads options, and takes effect at once where everything runs already. `vim.g.codestral` is read before them.
---@param options? table see :help codestral-options
function M.setup(options)
  config.load(options)
  M._is_set_up = true
  if is_started then
    is_started = false
    M.start()
  end
end

--- Mappings, events and the server for all buffers that are open. Called when the first file is opened.
function M.start()
  if is_started then
    return
  end
  is_started = true
  if not M._is_set_up then
    config.load()
  end
  engine().set_on(config.values.enabled)
  require('codestral.keys').map()
  require('codestral.events').listen()
  require('codestral.client').attach_all()
end

--- Accepts what is shown.
---@return boolean accepted false where nothing is shown
function M.accept()
  return (native() or { accept = require('codestral.accept').all }).accept()
end

--- Accepts its next word.
---@return boolean
function M.accept_word()
  return (native() or { accept_word = require('codestral.accept').word }).accept_word()
end

--- Accepts the rest of its line, or a line break and the next line.
---@return boolean
function M.accept_line()
  return (native() or { accept_line = require('codestral.accept').line }).accept_line()
end

--- Shows another suggestion in place of the one that is shown. The first time the server is asked for alternatives.
---@return boolean
function M.next()
  return M.is_visible() and (native() or engine()).step(1)
end

---@return boolean
function M.prev()
  return M.is_visible() and (native() or engine()).step(-1)
end

--- Asks for suggestions by name, also where nothing comes by itself; where several are shown, the next one.
---@return boolean
function M.trigger()
  return (native() or engine()).step(1)
end

--- Hides what is shown and tells the server that it was not wanted.
---@return boolean
function M.dismiss()
  return (native() or engine()).dismiss()
end

--- For mappings: whether there is something to accept.
---@return boolean
function M.is_visible()
  return (native() or engine()).is_visible()
end

---@param bufnr? integer
---@return boolean
function M.is_enabled(bufnr)
  return engine().is_on(bufnr or vim.api.nvim_get_current_buf())
end

--- Switches suggestions on or off: in a buffer, or in all that have no switch of their own.
---@param value boolean
---@param bufnr? integer
function M.enable(value, bufnr)
  engine().set_on(value, bufnr)
  for _, each in ipairs(native() and vim.api.nvim_list_bufs() or {}) do
    require('codestral.native').enable(engine().is_on(each), each)
  end
  engine().refresh()
end

--- What the server does, in a few words without a % sign: for a status line.
---@return string
function M.statusline()
  return require('codestral.status').line(M.is_enabled())
end

--- The same as a table, which `User CodestralStatus` brings in `data` too.
---@return codestral.Status
function M.status()
  return vim.deepcopy(require('codestral.status').current)
end

return M
