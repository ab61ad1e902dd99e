#!/usr/bin/env bash
# Usage: tools/demo.sh PYTHON RUN_DIR
#
# Trains, evaluates, visualizes, exports and adapts a model, on images that need no download.
# A second call continues after the last finished step.
set -euo pipefail

python=$1 run_dir=$2
steps=$run_dir/.demo
mkdir -p "$steps"

# step NAME TEXT COMMAND...: runs COMMAND unless it has succeeded before in this run directory.
step() {
  local name=$1 text=$2
  shift 2
  if [[ -e $steps/$name ]]; then
    printf '\n== %s: finished before\n' "$text"
    return
  fi
  printf '\n== %s\n   %s\n' "$text" "$*"
  local start=$SECONDS
  "$@"
  echo "   ($((SECONDS - start)) s)"
  touch "$steps/$name"
}

step train "Train a meta-learner LSTM on characters of many scripts" \
  "$python" -m tf_metalstm.train --flagfile=flags/recipes/glyphs_5way_5shot.flags --run_dir="$run_dir"
step evaluate "Evaluate it on characters of new scripts" \
  "$python" -m tf_metalstm.evaluate --run_dir="$run_dir"
step visualize "Draw its gates" \
  "$python" -m tf_metalstm.visualize --run_dir="$run_dir"
step export "Export it, with a folder of sample images of five new classes" \
  "$python" -m tf_metalstm.export --run_dir="$run_dir" --example_dir="$run_dir/example"
step adapt "Adapt the exported model to that folder, without the package" \
  "$python" export/adapt.py --model "$run_dir/saved_model" \
  --support "$run_dir/example/support" --query "$run_dir/example/query" \
  --csv "$run_dir/predictions.csv"

figures=$(find "$run_dir" -name '*.png' -not -path "$run_dir/example/*" | sort | paste -s -d ' ')
cat <<END

== Results, in $run_dir
   saved_model/      the model: it adapts to new classes without the package
   predictions.csv   its answers for the images in example/query
   run.flags         all settings; --flagfile=$run_dir/run.flags repeats the run
   figures:          ${figures:-none}

== Next
   Curves and gates:  ${python%/*}/tensorboard --logdir $run_dir
   Your own images:   one folder for each class, as in $run_dir/example/support, then
                      $python export/adapt.py --model $run_dir/saved_model --support DIR --query DIR
   To start again:    rm -r $run_dir
END
