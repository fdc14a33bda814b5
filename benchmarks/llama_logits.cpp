// What llama.cpp says: reads a GGUF and token ids, prints the logits after each of them.
//
//   llama-logits MODEL.gguf 1 17 4 ... [--chunk N] [--threads N]
//
// One JSON line: {"n_vocab": V, "logits": [[V numbers], ...]}, one row for each token. N tokens go in at a time (all of them unless told), so that its
// stepping can be compared with its feeding. Built by build_peers.sh. Knows llama.cpp's C API only; the tests and benchmarks judge the numbers.
#include "llama.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

static void quiet(enum ggml_log_level level, const char * text, void *) {
    if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

// A whole number of at least `least`, or the end of the program with one line.
static int number(const char * text, int least, const char * what) {
    char * end = nullptr;
    const long value = text ? strtol(text, &end, 10) : -1;
    if (!text || *end || end == text || value < least || value > 1 << 30) {
        fprintf(stderr, "error: %s is '%s', expected a whole number of at least %d\n", what, text ? text : "", least);
        exit(2);
    }
    return int(value);
}

int main(int argc, char ** argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: llama-logits MODEL.gguf ID... [--chunk N] [--threads N]\n");
        return 2;
    }
    std::vector<llama_token> ids;
    int chunk = 0, threads = 1;
    for (int i = 2; i < argc; i++) {
        if (!strcmp(argv[i], "--chunk")) chunk = number(argv[++i], 1, "--chunk");
        else if (!strcmp(argv[i], "--threads")) threads = number(argv[++i], 1, "--threads");
        else ids.push_back(number(argv[i], 0, "a token id"));
    }
    if (ids.empty()) return number(nullptr, 0, "the first token id");
    const int n = int(ids.size());
    if (!chunk) chunk = n;

    llama_log_set(quiet, nullptr);
    llama_backend_init();
    llama_model * model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (!model) {
        fprintf(stderr, "error: %s: llama.cpp cannot load it\n", argv[1]);
        return 1;
    }
    llama_context_params params = llama_context_default_params();
    params.n_ctx = n;
    params.n_batch = params.n_ubatch = chunk;
    params.n_threads = params.n_threads_batch = threads;
    llama_context * context = llama_init_from_model(model, params);
    if (!context) {
        fprintf(stderr, "error: %s: llama.cpp makes no context of %d tokens\n", argv[1], n);
        return 1;
    }
    const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));

    printf("{\"n_vocab\": %d, \"logits\": [", n_vocab);
    llama_batch batch = llama_batch_init(chunk, 0, 1);
    for (int start = 0; start < n; start += chunk) {
        batch.n_tokens = n - start < chunk ? n - start : chunk;
        for (int t = 0; t < batch.n_tokens; t++) {
            batch.token[t] = ids[start + t];
            batch.pos[t] = start + t;
            batch.n_seq_id[t] = 1;
            batch.seq_id[t][0] = 0;
            batch.logits[t] = true;
        }
        if (llama_decode(context, batch)) {
            fprintf(stderr, "error: %s: llama.cpp fails at token %d\n", argv[1], start);
            return 1;
        }
        for (int t = 0; t < batch.n_tokens; t++) {
            const float * row = llama_get_logits_ith(context, t);
            printf("%s[", start + t ? ", " : "");
            for (int v = 0; v < n_vocab; v++) {
                if (!std::isfinite(row[v])) { // JSON has no word for it
                    fprintf(stderr, "error: %s: logit %d after token %d is not finite\n", argv[1], v, start + t);
                    return 1;
                }
                printf("%s%.9g", v ? ", " : "", row[v]);
            }
            printf("]");
        }
    }
    printf("]}\n");
    llama_batch_free(batch);
    llama_free(context);
    llama_model_free(model);
    llama_backend_free();
    return 0;
}
