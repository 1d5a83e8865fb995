// The steps that config_load is made of.
#ifndef SOLAR_CONFIG_PARTS_H
#define SOLAR_CONFIG_PARTS_H

#include "config.h"
#include "yaml_tree.h"

// Puts "path.to.key=value" into the tree. data.train.0.weight=0.5 names an item of a list.
err *config_set(yaml_tree *tree, node *root, const char *text);
// `mesh: auto` becomes `mesh: {auto: true}`.
err *config_expand_auto(yaml_tree *tree, node *root);
// An error at the first key that the schema does not know, or that should be a map of keys and is not.
err *config_find_unknown(const node *root);
// The tree into the members of *c, which is all zero: types, ranges, required keys, defaults.
err *config_bind(yaml_tree *tree, const node *root, config *c);
// What the schema cannot say: keys that depend on each other. Fills in what they decide.
err *config_check(const node *root, config *c);
// Makes paths absolute: from the current directory, else from the config file's. With `must_exist`, what
// is read must be there.
err *config_resolve(const node *root, const char *config_path, bool must_exist, config *c);

#endif
