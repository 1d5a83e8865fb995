#include "sentencepiece_shim.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <string>
#include <unordered_map>
#include <vector>

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

struct sp_model {
    sentencepiece::SentencePieceProcessor processor;
};

namespace {

void tell(char *why, const char *reason) { std::snprintf(why, WHY_BYTES, "%s", reason); }

bool good(const sentencepiece::util::Status &status, char *why) {
    if (!status.ok()) tell(why, status.ToString().c_str());
    return status.ok();
}

// Runs `body`, which returns a bool, and turns whatever it throws into false.
template <typename F> bool guarded(char *why, F body) {
    try {
        return body();
    } catch (const std::exception &x) { tell(why, x.what()); } catch (...) {
        tell(why, "unknown exception");
    }
    return false;
}

// The lines of a file. The trainer could open the file itself, but would then write its name into the
// model, and equal text would not give equal models.
class lines : public sentencepiece::SentenceIterator {
  public:
    explicit lines(const char *path) : file_(path) { Next(); }
    bool done() const override { return done_; }
    void Next() override {
        do done_ = !std::getline(file_, line_);
        while (!done_ && line_.empty());
    }
    const std::string &value() const override { return line_; }
    sentencepiece::util::Status status() const override {
        if (!file_.bad()) return {};
        return {sentencepiece::util::StatusCode::kInternal, "cannot read the training text"};
    }

  private:
    std::ifstream file_;
    std::string line_;
    bool done_ = false;
};

void *copy_out(const void *data, size_t bytes) {
    char *out = static_cast<char *>(std::malloc(bytes + 1));
    if (!out) throw std::bad_alloc();
    std::memcpy(out, data, bytes);
    out[bytes] = 0;
    return out;
}

} // namespace

bool sp_open(const void *proto, size_t bytes, sp_model **out, char *why) {
    *out = nullptr;
    sp_model *m = nullptr;
    bool ok = guarded(why, [&] {
        m = new sp_model;
        return good(m->processor.LoadFromSerializedProto({static_cast<const char *>(proto), bytes}), why);
    });
    if (ok)
        *out = m;
    else
        delete m;
    return ok;
}

void sp_close(sp_model *m) { delete m; }
int sp_vocab(const sp_model *m) { return m->processor.GetPieceSize(); }
int sp_bos(const sp_model *m) { return m->processor.bos_id(); }
int sp_eos(const sp_model *m) { return m->processor.eos_id(); }

bool sp_encode(const sp_model *m, const char *text, size_t bytes, int32_t **ids, size_t *count, char *why) {
    *ids = nullptr;
    *count = 0;
    return guarded(why, [&] {
        std::vector<int> v;
        if (!good(m->processor.Encode({text, bytes}, &v), why)) return false;
        static_assert(sizeof(int) == sizeof(int32_t), "ids are copied as they are");
        if (!v.empty()) *ids = static_cast<int32_t *>(copy_out(v.data(), v.size() * sizeof(int32_t)));
        *count = v.size();
        return true;
    });
}

bool sp_decode(const sp_model *m, const int32_t *id, size_t count, char **text, size_t *bytes, char *why) {
    *text = nullptr;
    return guarded(why, [&] {
        std::string s;
        if (!good(m->processor.Decode(std::vector<int>(id, id + count), &s), why)) return false;
        *text = static_cast<char *>(copy_out(s.data(), s.size()));
        *bytes = s.size();
        return true;
    });
}

bool sp_train(const char *input, int vocab, void **proto, size_t *bytes, char *why) {
    *proto = nullptr;
    return guarded(why, [&] {
        lines text(input);
        std::string model;
        // As Llama's: text is not normalised, white space is kept, digits stand alone. num_threads is
        // written into the model too, so it does not follow the machine.
        const std::unordered_map<std::string, std::string> spec = {
            {"model_type", "bpe"},
            {"vocab_size", std::to_string(vocab)},
            {"byte_fallback", "true"},
            {"character_coverage", "0.9995"},
            {"split_digits", "true"},
            {"allow_whitespace_only_pieces", "true"},
            {"remove_extra_whitespaces", "false"},
            {"normalization_rule_name", "identity"},
            {"max_sentence_length", "1048576"},
            {"unk_id", "0"},
            {"bos_id", "1"},
            {"eos_id", "2"},
            {"pad_id", "-1"},
            {"num_threads", "4"},
            {"minloglevel", "2"},
        };
        if (!good(sentencepiece::SentencePieceTrainer::Train(spec, &text, &model), why)) return false;
        *proto = copy_out(model.data(), model.size());
        *bytes = model.size();
        return true;
    });
}
