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
    bool splits_at_spaces = false;
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

// ---- reading the model type, which the library does not tell: field 3 of field 2 of the model, in
// Protocol Buffers' encoding (https://protobuf.dev/programming-guides/encoding)

bool varint(const std::string &s, size_t &at, uint64_t &value) {
    value = 0;
    for (int shift = 0; shift < 64 && at < s.size(); shift += 7) {
        const auto byte = static_cast<unsigned char>(s[at++]);
        value |= static_cast<uint64_t>(byte & 0x7f) << shift;
        if (byte < 0x80) return true;
    }
    return false;
}

// The last value of a field: a number, or the range of its bytes. False: not there.
bool field(const std::string &s, uint64_t wanted, uint64_t &number, std::string &bytes) {
    bool found = false;
    for (size_t at = 0; at < s.size();) {
        uint64_t tag, value;
        if (!varint(s, at, tag)) return false;
        const bool ours = tag >> 3 == wanted;
        switch (tag & 7) {
        case 0:
            if (!varint(s, at, value)) return false;
            if (ours) number = value;
            break;
        case 1: at += 8; break;
        case 2:
            if (!varint(s, at, value) || value > s.size() - at) return false;
            if (ours) bytes = s.substr(at, value);
            at += value;
            break;
        case 5: at += 4; break;
        default: return false;
        }
        found |= ours;
    }
    return found;
}

bool is_bpe(const std::string &proto) {
    enum { TRAINER_SPEC = 2, MODEL_TYPE = 3, BPE = 2 };
    uint64_t type = 0;
    std::string spec, unused;
    return field(proto, TRAINER_SPEC, type, spec) && field(spec, MODEL_TYPE, type, unused) && type == BPE;
}

// A piece that goes on past a space would be cut: none may hold one but at its start.
bool only_leading_spaces(const std::string &piece) {
    static const std::string space = "\xe2\x96\x81";
    size_t at = 0;
    while (piece.compare(at, space.size(), space) == 0) at += space.size();
    return piece.find(space, at) == std::string::npos && piece.find(' ') == std::string::npos;
}

// In BPE without such pieces no merge reaches over the space between two words, and what happens on one
// side of it never changes the other; that a text's start is treated like a space is asked of the model.
bool splits_at_spaces(const sentencepiece::SentencePieceProcessor &p, const std::string &proto) {
    if (!is_bpe(proto)) return false;
    for (int i = 0; i < p.GetPieceSize(); i++)
        if (!only_leading_spaces(p.IdToPiece(i))) return false;
    std::vector<int> whole, parts, second;
    if (!p.Encode("a b", &whole).ok() || !p.Encode("a", &parts).ok() || !p.Encode("b", &second).ok())
        return false;
    parts.insert(parts.end(), second.begin(), second.end());
    return whole == parts;
}

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
        const std::string model(static_cast<const char *>(proto), bytes);
        if (!good(m->processor.LoadFromSerializedProto(model), why)) return false;
        m->splits_at_spaces = splits_at_spaces(m->processor, model);
        return true;
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
bool sp_splits_at_spaces(const sp_model *m) { return m->splits_at_spaces; }

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
