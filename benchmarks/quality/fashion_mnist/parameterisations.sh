#!/bin/bash
# Three of the paper's Table 1 on Fashion-MNIST, in the current folder: short teachers (2,000 updates), measured by DDIM
# and by ancestral sampling at 64 steps, and their students of 8 and 4 steps. Each command goes on where it was stopped.
set -e
here=$(dirname "$0")
config="$here/config.yaml"
data="--train_data_dir fashion-mnist.parquet --class_column label"
features="--feature_extractor classifier,efflite0"
for pair in ${1:-v_prediction-truncated_snr sample-truncated_snr sample-snr_plus_one}; do
    shape="--prediction_type ${pair%-*} --weighting ${pair#*-}"
    progdistill train-teacher --config "$config" --model_config_name_or_path "$here/unet.json" $shape \
        --max_train_steps 2000 --lr_warmup_steps 100 --output_dir "table-1/$pair/teacher"
    progdistill distill --config "$config" --pretrained_teacher_model "table-1/$pair/teacher" $shape \
        --updates_per_stage 400 --no_clip_loss --output_dir "table-1/$pair"
    # Each by itself: with the whole run its images would be compared with the teacher's of 256 steps.
    progdistill evaluate "table-1/$pair"/{teacher,steps-8,steps-4} $data $features --num_images 2000 --seeds 0 \
        --steps 64 --samplers progdistill,ddpm --output_dir "table-1/$pair"
done
