--- :Codestral and its words. Shows what the server answers; decides nothing.

local client = require('codestral.client')
local status = require('codestral.status')

local M = {}

local function say(message, level)
  vim.notify('codestral: ' .. message, level or vim.log.levels.INFO)
end

--- Runs a command of the server and says what came of it.
---@param name string
---@param arguments any[]
---@param on_result fun(result: any)
local function ask(name, arguments, on_result)
  client.execute(name, arguments, function(err, result)
    if err then
      return say(('%s: %s'):format(name, err), vim.log.levels.WARN)
    end
    on_result(result)
  end)
end

--- A window with text that can be searched, closed with q.
---@param name string
---@param lines string[]
local function show(name, lines)
  vim.cmd('botright new')
  local bufnr = vim.api.nvim_get_current_buf()
  vim.bo[bufnr].buftype, vim.bo[bufnr].bufhidden, vim.bo[bufnr].swapfile = 'nofile', 'wipe', false
  pcall(vim.api.nvim_buf_set_name, bufnr, 'codestral://' .. name) -- taken where it is shown already
  vim.api.nvim_buf_set_lines(bufnr, 0, -1, false, lines)
  vim.bo[bufnr].modifiable = false
  vim.keymap.set('n', 'q', '<Cmd>close<CR>', { buffer = bufnr, desc = 'codestral: close' })
end

--- What `codestral.whatIsRead` answers, as lines.
---@param result table
---@return string[]
function M.read_lines(result)
  local lines = {}
  for _, workspace in ipairs(type(result) == 'table' and result.workspaces or {}) do
    local current = type(workspace.current) == 'number'
        and (', %d %% current'):format(math.floor(100 * workspace.current))
      or ''
    lines[#lines + 1] = workspace.root
    lines[#lines + 1] = ('  %s: %s of %s tokens read%s, %s documents'):format(
      workspace.stage or '?',
      workspace.done or '?',
      workspace.tokens or '?',
      current,
      workspace.n_documents or #(workspace.documents or {})
    )
    for _, document in ipairs(workspace.documents or {}) do
      local n_tokens = type(document.tokens) == 'number' and tostring(document.tokens) or ''
      lines[#lines + 1] = ('  %8s  %s'):format(n_tokens, document.path)
    end
    for _, path in ipairs(workspace.left_out or {}) do
      lines[#lines + 1] = ('  %8s  %s'):format('left out', path)
    end
    lines[#lines + 1] = ''
  end
  return #lines > 0 and lines or { 'no folder is read' }
end

local function switch(make)
  return function(where)
    if where and where ~= 'buffer' then
      return say(("%s: expected nothing or 'buffer'"):format(where), vim.log.levels.WARN)
    end
    local codestral = require('codestral')
    local bufnr = where and vim.api.nvim_get_current_buf() or nil
    local value = make(codestral.is_enabled())
    codestral.enable(value, bufnr)
    say(('suggestions are %s%s'):format(value and 'on' or 'off', where and ' in this buffer' or ''))
  end
end

---@type table<string, { run: fun(argument: string?), words: string[]? }>
local WORDS = {
  status = {
    run = function()
      local client_now = client.get()
      say(status.sentence() .. (client_now and '' or ' (the server does not run)'))
    end,
  },
  pause = {
    run = function(minutes)
      local number = tonumber(minutes)
      if minutes and not (number and number > 0) then
        return say(('pause %s: expected a number of minutes above 0'):format(minutes), vim.log.levels.WARN)
      end
      ask('codestral.pause', number and { number } or {}, function()
        require('codestral.engine').clear()
        say(number and ('paused for %g minutes'):format(number) or 'paused, until :Codestral resume')
      end)
    end,
    words = { '5', '30', '60' },
  },
  resume = {
    run = function()
      ask('codestral.resume', {}, function()
        say('resumed')
      end)
    end,
  },
  restart = {
    run = function()
      if not client.get() then
        return client.restart()
      end
      client.execute('codestral.restart', {}, function() -- ends the daemon; then we start its server anew
        client.restart()
      end)
    end,
  },
  read = {
    run = function()
      ask('codestral.whatIsRead', {}, function(result)
        show('read', M.read_lines(result))
      end)
    end,
  },
  log = {
    run = function()
      ask('codestral.log', {}, function(result)
        local path = type(result) == 'table' and result.daemon or nil
        if path and vim.uv.fs_stat(path) then
          vim.cmd('botright split ' .. vim.fn.fnameescape(path))
          return vim.cmd('setlocal readonly autoread | normal! G')
        end
        say(
          ('no log yet%s; what the server itself says is in %s'):format(
            path and ' at ' .. path or '',
            vim.lsp.get_log_path()
          )
        )
      end)
    end,
  },
  clear_cache = {
    run = function(what)
      if what and what ~= 'workspace' and what ~= 'all' then
        return say(("clear_cache %s: expected 'workspace' or 'all'"):format(what), vim.log.levels.WARN)
      end
      ask('codestral.clearCache', { what or 'workspace' }, function(result)
        say(type(result) == 'string' and result or 'cleared')
      end)
    end,
    words = { 'workspace', 'all' },
  },
  enable = { run = switch(function()
    return true
  end), words = { 'buffer' } },
  disable = { run = switch(function()
    return false
  end), words = { 'buffer' } },
  toggle = { run = switch(function(is_on)
    return not is_on
  end), words = { 'buffer' } },
}

local function names()
  local all = vim.tbl_keys(WORDS)
  table.sort(all)
  return all
end

---@param words string[]
function M.run(words)
  require('codestral').start()
  local name = words[1] or 'status'
  local word = WORDS[name]
  if not word or #words > 2 or (#words == 2 and not word.words) then
    return say(
      ('%s: expected one of %s'):format(table.concat(words, ' '), table.concat(names(), ', ')),
      vim.log.levels.WARN
    )
  end
  word.run(words[2])
end

---@param lead string
---@param line string
---@return string[]
function M.complete(lead, line)
  local name = line:match('^%s*%S+%s+(%S+)%s')
  local candidates = name and (WORDS[name] and WORDS[name].words or {}) or names()
  return vim.tbl_filter(function(candidate)
    return vim.startswith(candidate, lead)
  end, candidates)
end

return M
