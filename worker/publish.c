#include "publish.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fsutil.h"
#include "life.h"
#include "log.h"
#include "manifest.h"
#include "save_plan.h"

json_t *publication_note(const mesh *m, dtype dt) {
    char host[64] = "?", when[32];
    time_t now = time(NULL);
    struct tm utc;
    gethostname(host, sizeof host - 1);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    return json_pack("{s:i, s:i, s:i, s:i, s:s, s:s, s:s}", "ranks", m->world, "data", m->dp, "pipeline",
                     m->pp, "tensor", m->tp, "precision", st_dtype_name(dt), "host", host, "time", when);
}

// ---- are they all there

// Elements that the files hold of every tensor and kind, by name.
static err *count_elements(publication *p, json_t *found) {
    size_t i, k;
    json_t *file, *t;
    json_array_foreach(p->entries, i, file) json_array_foreach(json_object_get(file, "tensors"), k, t) {
        const char *of = json_string_value(json_object_get(t, "of"));
        const char *name = of ? of : json_string_value(json_object_get(t, "name"));
        const char *type = json_string_value(json_object_get(t, "dtype"));
        json_int_t bytes = json_integer_value(json_object_get(t, "bytes"));
        json_int_t had = json_integer_value(json_object_get(found, name));
        json_int_t n = bytes / (type && strcmp(type, "F32") == 0 ? 4 : 2);
        p->bytes += (uint64_t)bytes;
        if (json_object_set_new(found, name, json_integer(had + n)) != 0)
            return err_new(ERR_SYSTEM, "out of memory for counting tensors");
    }
    return NULL;
}

static err *check_complete(publication *p) {
    err *e = NULL;
    json_t *found = json_object();
    char name[128];
    TRY(count_elements(p, found));
    for (int i = 0; i < p->table->count; i++) {
        const tensor_row *r = &p->table->row[i];
        for (int k = KIND_MODEL; k < optim_kinds(p->dt); k++) {
            snprintf(name, sizeof name, "%s%s", r->name, save_kind_suffix(k));
            json_int_t n = json_integer_value(json_object_get(found, name));
            if (n != tensor_elements(r))
                FAIL(ERR_RUNTIME, "internal error: %lld of the %lld elements of %s were written",
                     (long long)n, (long long)tensor_elements(r), name);
        }
    }
done:
    json_decref(found);
    return e;
}

// ---- papers

static err *write_json(const char *dir, const char *name, json_t *doc) {
    char *path = path_join(dir, name),
         *text = doc ? json_dumps(doc, JSON_INDENT(2) | JSON_REAL_PRECISION(17)) : NULL;
    err *e = text ? write_file_atomic(path, text, strlen(text))
                  : err_new(ERR_SYSTEM, "out of memory for %s", path);
    free(text);
    free(path);
    json_decref(doc);
    return e;
}

static err *write_config(const publication *p) {
    json_t *doc = json_deep_copy(p->o->spec->config);
    const char *key = json_object_get(doc, "dtype") ? "dtype" : "torch_dtype";
    json_object_set_new(doc, key, json_string(p->dt == DT_F32 ? "float32" : "bfloat16"));
    return write_json(p->temp, "config.json", doc);
}

static bool is_model_file(json_t *file) {
    return strncmp(json_string_value(json_object_get(file, "file")), "solar/", 6) != 0;
}

static err *write_index(const publication *p) {
    json_t *map = json_object(), *file, *t;
    json_int_t total = 0;
    size_t i, k, files = 0;
    json_array_foreach(p->entries, i, file) {
        if (!is_model_file(file)) continue;
        files++;
        json_array_foreach(json_object_get(file, "tensors"), k, t) {
            json_object_set(map, json_string_value(json_object_get(t, "name")),
                            json_object_get(file, "file"));
            total += json_integer_value(json_object_get(t, "bytes"));
        }
    }
    json_t *doc =
        files > 1 ? json_pack("{s:{s:I}, s:O}", "metadata", "total_size", total, "weight_map", map) : NULL;
    json_decref(map);
    return files > 1 ? write_json(p->temp, "model.safetensors.index.json", doc) : NULL;
}

static err *write_state(const publication *p) {
    char *path = path_join(p->temp, "solar/state.json");
    err *e = write_file_atomic(path, p->state, strlen(p->state));
    free(path);
    return e;
}

// Every file that is not tensors, as it now lies in the directory, into the manifest.
static err *list_plain(const publication *p, const char *sub) {
    err *e = NULL;
    char *path = path_join(p->temp, sub);
    DIR *d = opendir(path);
    if (!d) TRY(err_errno(errno, "%s cannot be listed", path));
    for (struct dirent *f; (f = readdir(d));) {
        const char *dot = strrchr(f->d_name, '.');
        char name[512];
        json_t *entry = NULL;
        if (!strcmp(f->d_name, "solar") || (dot && !strcmp(dot, ".safetensors")) || f->d_name[0] == '.')
            continue;
        snprintf(name, sizeof name, "%s%s%s", sub, *sub ? "/" : "", f->d_name);
        TRY(manifest_plain(p->temp, name, &entry));
        json_array_append_new(p->entries, entry);
    }
done:
    if (d) closedir(d);
    free(path);
    return e;
}

static err *copy_extras(const publication *p) {
    if (is_dir(p->o->extras_from)) return copy_model_extras(p->o->extras_from, p->temp);
    log_warn("%s is gone: its tokenizer files are not copied into the checkpoint", p->o->extras_from);
    return NULL; // the weights are worth saving without
}

static err *sync_directories(const publication *p) {
    char *solar = path_join(p->temp, "solar");
    err *e = fsync_path(solar);
    if (!e) e = fsync_path(p->temp);
    free(solar);
    return e;
}

err *publish(publication *p) {
    err *e = NULL;
    char *home = path_join(p->o->run_dir, "checkpoints");
    TRY(check_complete(p));
    TRY(write_config(p));
    TRY(copy_extras(p));
    TRY(write_index(p));
    TRY(write_state(p));
    TRY(list_plain(p, ""));
    TRY(list_plain(p, "solar"));
    TRY(manifest_write(p->temp, p->written, p->entries));
    TRY(sync_directories(p));
    TRY(make_dirs(home));
    TRY(fsync_path(p->o->run_dir));
    TRY(life_check(p->o->run_dir, p->o->life));
    TRY(checkpoint_publish(p->o->run_dir, p->o->life, p->temp, p->final));
    checkpoint_retain(p->o->run_dir, p->o->life, &p->o->keep);
done:
    free(home);
    return e;
}
