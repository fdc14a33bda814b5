--- The language server: found, started once for all buffers, started again when it dies, asked and told.
--- Knows LSP; knows nothing of what is drawn.

local config = require('codestral.config')
local status = require('codestral.status')

local M = {}

M.RESTARTS = { most = 5, within_ms = 180000, delay_ms = 200 } -- twice the delay after each

local HAS_METHODS = vim.fn.has('nvim-0.11') == 1 -- client:request() since then, client.request() before
local LANGUAGE_IDS = { -- where Neovim's name for a language is not LSP's
  sh = 'shellscript',
  bash = 'shellscript',
  zsh = 'shellscript',
  cs = 'csharp',
  make = 'makefile',
  tex = 'latex',
  text = 'plaintext',
  ps1 = 'powershell',
  objc = 'objective-c',
  objcpp = 'objective-cpp',
  vb = 'vb',
}

--- Called when the server knows of a buffer. Set by events.lua, which stands above this file.
---@type fun(client: vim.lsp.Client, bufnr: integer)
M.on_attach = function() end

---@type integer?
local client_id
local deaths = {} ---@type integer[] milliseconds, of deaths that were not asked for
local focused ---@type string? the URI that the server was told of

---@param client vim.lsp.Client
---@param name string of a method
local function call(client, name, ...)
  if HAS_METHODS then
    return client[name](client, ...)
  end
  return client[name](...)
end

---@return vim.lsp.Client? client that can be asked, nil while it starts or where there is none
function M.get()
  local client = client_id and vim.lsp.get_client_by_id(client_id)
  return client and client.initialized and not call(client, 'is_stopped') and client or nil
end

---@return string? program with its path, nil where it is not installed
function M.program()
  local path = vim.fn.exepath(vim.fn.expand(config.values.cmd[1]))
  return path ~= '' and path or nil
end

---@param bufnr integer
---@return boolean whether the server shall know of this buffer: a file that can be written
function M.is_wanted(bufnr)
  if not vim.api.nvim_buf_is_loaded(bufnr) or vim.bo[bufnr].buftype ~= '' or not vim.bo[bufnr].modifiable then
    return false
  end
  local name = vim.api.nvim_buf_get_name(bufnr)
  if name == '' or name:match('^%a[%w+.-]+://') then
    return false
  end
  return config.values.should_attach == nil or config.values.should_attach(bufnr) == true
end

---@param bufnr integer
---@return boolean
function M.is_attached(bufnr)
  return client_id ~= nil and vim.lsp.buf_is_attached(bufnr, client_id)
end

local function root_of(bufnr)
  local name = vim.api.nvim_buf_get_name(bufnr)
  return vim.fs.root(bufnr, config.values.root_markers) or vim.fs.dirname(vim.fs.normalize(name))
end

--- A second repository in the same Neovim: the server reads it too.
local function add_folder(client, root)
  for _, folder in ipairs(client.workspace_folders or {}) do
    if vim.fs.normalize(vim.uri_to_fname(folder.uri)) == vim.fs.normalize(root) then
      return
    end
  end
  local folder = { uri = vim.uri_from_fname(root), name = root }
  client.workspace_folders = client.workspace_folders or {}
  table.insert(client.workspace_folders, folder)
  if client.initialized then -- else `initialize` has it
    call(client, 'notify', 'workspace/didChangeWorkspaceFolders', { event = { added = { folder }, removed = {} } })
  end
end

local function on_exit(code, signal, id)
  vim.schedule(function()
    if id ~= client_id or vim.v.exiting ~= vim.NIL then
      return
    end
    client_id, focused = nil, nil
    require('codestral.engine').clear_all()
    local now = vim.uv.now()
    deaths = vim.tbl_filter(function(at)
      return now - at < M.RESTARTS.within_ms
    end, deaths)
    table.insert(deaths, now)
    local why = ('code %d, signal %d'):format(code, signal)
    if #deaths > M.RESTARTS.most then
      status.fail(('the server ended %d times (%s); :Codestral restart'):format(#deaths, why))
      return
    end
    status.set({ state = 'starting', message = 'the server ended and is started again' })
    vim.defer_fn(M.attach_all, M.RESTARTS.delay_ms * 2 ^ (#deaths - 1))
  end)
end

local function capabilities()
  local all = vim.lsp.protocol.make_client_capabilities()
  -- Declared on Neovim 0.10 and 0.11 too: a server that does not see it offers itself to completion menus instead.
  all.textDocument.inlineCompletion = { dynamicRegistration = false }
  return all
end

--- What `vim.lsp.config('codestral', ...)` says, on Neovim 0.11 and later.
local function users_config()
  if not HAS_METHODS then
    return {}
  end
  local ok, given = pcall(function()
    return vim.lsp.config.codestral
  end)
  return ok and given or {}
end

local function start(bufnr)
  local root = root_of(bufnr)
  local client_config = vim.tbl_deep_extend(
    'force',
    {
      cmd = config.values.cmd,
      init_options = next(config.values.settings) and config.values.settings or vim.empty_dict(),
      capabilities = capabilities(),
      get_language_id = function(_, filetype)
        return LANGUAGE_IDS[filetype] or filetype
      end,
    },
    users_config(),
    {
      name = 'codestral',
      root_dir = root,
      workspace_folders = { { uri = vim.uri_from_fname(root), name = root } },
      handlers = { ['didChangeStatus'] = status.handler },
      on_exit = on_exit,
    }
  )
  client_config.on_init = status.initialized
  -- 0.10 knows no list here, and no vim.lsp.config either, which could bring another one.
  client_config.on_attach = HAS_METHODS and vim.iter({ client_config.on_attach or {}, M.on_attach }):flatten():totable()
    or M.on_attach
  status.set({ state = 'starting' })
  return vim.lsp.start(client_config, {
    bufnr = bufnr,
    reuse_client = function()
      return false
    end,
  })
end

--- Has the server know of a buffer, and starts it where none runs.
---@param bufnr integer
---@return boolean
function M.attach(bufnr)
  if not M.is_wanted(bufnr) then
    return false
  end
  if M.is_attached(bufnr) then
    return true
  end
  local client = client_id and vim.lsp.get_client_by_id(client_id)
  if client then
    add_folder(client, root_of(bufnr))
    return vim.lsp.buf_attach_client(bufnr, client.id)
  end
  if status.current.state == 'failed' then
    return false
  end
  if not M.program() then
    local cmd = config.values.cmd[1]
    status.fail(('no program %s here; see :checkhealth codestral'):format(cmd))
    return false
  end
  client_id = start(bufnr)
  if not client_id then
    status.fail(('%s does not start; see :checkhealth codestral'):format(config.values.cmd[1]))
  end
  return client_id ~= nil
end

function M.attach_all()
  for _, bufnr in ipairs(vim.api.nvim_list_bufs()) do
    M.attach(bufnr)
  end
end

--- Ends the server and starts it anew for all buffers. What the daemon has read stays read.
function M.restart()
  deaths = {}
  local client = client_id and vim.lsp.get_client_by_id(client_id)
  client_id, focused = nil, nil
  if client then
    call(client, 'stop', true)
  end
  status.reset()
  vim.defer_fn(M.attach_all, 50)
end

---@return string encoding of columns, as agreed with the server
function M.encoding()
  local client = M.get()
  return client and client.offset_encoding or 'utf-16'
end

--- Asks. The answer comes unless it is cancelled.
---@param bufnr integer
---@param params table
---@param on_answer fun(err: table?, result: any)
---@return (fun())? cancel nil where there is no server to ask
function M.request(bufnr, params, on_answer)
  local client = M.get()
  if not client or not M.is_attached(bufnr) then
    return nil
  end
  local is_over = false
  local ok, id = call(client, 'request', 'textDocument/inlineCompletion', params, function(err, result)
    if not is_over then
      is_over = true
      on_answer(err, result)
    end
  end, bufnr)
  if not ok then
    return nil
  end
  return function()
    if not is_over then
      is_over = true
      pcall(call, client, 'cancel_request', id) -- it may have died meanwhile
    end
  end
end

---@param method string
---@param params table
function M.notify(method, params)
  local client = M.get()
  if client then
    call(client, 'notify', method, params)
  end
end

--- One of the server's commands.
---@param name string
---@param arguments any[]
---@param on_answer? fun(err: string?, result: any)
function M.execute(name, arguments, on_answer)
  local client = M.get()
  on_answer = on_answer or function() end
  if not client then
    return on_answer('the server does not run; :Codestral status says why', nil)
  end
  local params = { command = name, arguments = arguments }
  call(client, 'request', 'workspace/executeCommand', params, function(err, result)
    on_answer(err and (err.message or vim.inspect(err)) or nil, result ~= vim.NIL and result or nil)
  end)
end

--- Tells the server which document is looked at.
---@param bufnr integer
function M.focus(bufnr)
  if not M.get() then
    return
  end
  local uri = M.is_attached(bufnr) and vim.uri_from_bufnr(bufnr) or nil
  if uri ~= focused then
    focused = uri
    M.notify('textDocument/didFocus', uri and { textDocument = { uri = uri } } or vim.empty_dict())
  end
end

return M
