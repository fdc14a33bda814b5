--- What the user may set: defaults, `vim.g.codestral`, `setup{}`, in this order. Knows no server and no buffer.
---
--- A key that is unknown or has a wrong value is one line in `problems` and the default: told once, and again by :checkhealth.

local M = {}

---@class codestral.Config
---@field cmd string[] the server's command
---@field enabled boolean whether suggestions are on when Neovim starts
---@field settings table for the server (initializationOptions)
---@field render 'extmark'|'native'
---@field debounce_ms integer from the last key until the server is asked
---@field hide_for_menu boolean whether a completion menu hides the suggestion
---@field show_count boolean whether "(2/3)" stands behind one of several suggestions
---@field root_markers string[]
---@field should_attach? fun(bufnr: integer): boolean
---@field keys table<string, string|false>
M.defaults = {
  cmd = { 'codestral-lsp', '--stdio' },
  enabled = true,
  settings = {},
  render = 'extmark',
  debounce_ms = 15,
  hide_for_menu = true,
  show_count = true,
  root_markers = { '.git' },
  should_attach = nil,
  keys = {
    accept = '<Tab>',
    accept_word = '<M-Right>',
    accept_line = '<M-Down>',
    next = '<M-]>',
    prev = '<M-[>',
    trigger = '<M-Bslash>',
    dismiss = '<C-]>',
  },
}

---@type codestral.Config
M.values = vim.deepcopy(M.defaults)

---@type string[]
M.problems = {}

local function is_words(value)
  return vim.islist(value)
    and #value > 0
    and vim.iter(value):all(function(word)
      return type(word) == 'string'
    end)
end

local function is_key_table(value)
  return type(value) == 'table'
end

local CHECKS = {
  cmd = { is_words, 'a list of strings' },
  enabled = { 'boolean', 'true or false' },
  settings = { 'table', 'a table' },
  render = {
    function(value)
      return value == 'extmark' or value == 'native'
    end,
    "'extmark' or 'native'",
  },
  debounce_ms = {
    function(value)
      return type(value) == 'number' and value >= 0 and value <= 10000
    end,
    'a number from 0 to 10000',
  },
  hide_for_menu = { 'boolean', 'true or false' },
  show_count = { 'boolean', 'true or false' },
  root_markers = { is_words, 'a list of strings' },
  should_attach = { 'function', 'a function of a buffer number' },
  keys = { is_key_table, 'a table of keys, or false for none' },
}

local function note(name, expected, found)
  M.problems[#M.problems + 1] = ('%s: expected %s, found %s'):format(name, expected, vim.inspect(found):sub(1, 60))
end

local function known(names)
  local sorted = vim.tbl_keys(names)
  table.sort(sorted)
  return 'one of ' .. table.concat(sorted, ', ')
end

---@param keys table
local function read_keys(keys)
  for name, key in pairs(keys) do
    if M.defaults.keys[name] == nil then
      note('keys', known(M.defaults.keys), name)
    elseif key == false or type(key) == 'string' and key ~= '' then
      M.values.keys[name] = key
    else
      note('keys.' .. name, 'a key such as <Tab>, or false', key)
    end
  end
end

---@param options table
local function read(options)
  for name, value in pairs(options) do
    local check = CHECKS[name]
    if name == 'keys' and value == false then
      for key in pairs(M.defaults.keys) do
        M.values.keys[key] = false
      end
    elseif not check then
      note('options', known(CHECKS), name)
    elseif
      type(check[1]) == 'string' and type(value) ~= check[1] or vim.is_callable(check[1]) and not check[1](value)
    then
      note(name, check[2], value)
    elseif name == 'keys' then
      read_keys(value)
    else
      M.values[name] = value
    end
  end
end

--- Reads everything anew. Several problems are one message, which shall fit a line; :checkhealth has them all.
---@param options? table of setup{}
function M.load(options)
  M.values, M.problems = vim.deepcopy(M.defaults), {}
  for name, given in pairs({ ['vim.g.codestral'] = vim.g.codestral, ['setup{}'] = options }) do
    if type(given) ~= 'table' then
      note(name, 'a table', given)
    end
  end
  for _, given in ipairs({ vim.g.codestral or vim.empty_dict(), options or vim.empty_dict() }) do
    if type(given) == 'table' then
      read(given)
    end
  end
  if M.values.render == 'native' and not (vim.lsp.inline_completion and vim.lsp.inline_completion.enable) then
    note('render', "'extmark' (Neovim 0.12 and later have 'native')", 'native')
    M.values.render = 'extmark'
  end
  if #M.problems > 0 then
    local several = ('%d wrong options; see :checkhealth codestral'):format(#M.problems)
    vim.notify('codestral: ' .. (#M.problems == 1 and M.problems[1] or several), vim.log.levels.WARN)
  end
end

return M
