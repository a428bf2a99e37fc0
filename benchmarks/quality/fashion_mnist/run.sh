#!/bin/bash
# Everything that docs/results.md says of Fashion-MNIST, in order, in the current folder. Each command goes on where it
# was stopped, and does nothing when it is done: about an hour of training and as much of measuring on 2 cores.
set -e
here=$(dirname "$0")
config="$here/config.yaml"
[ -e fashion-mnist.parquet ] || python "$here/prepare.py" fashion-mnist.parquet

progdistill train-teacher --config "$config" --model_config_name_or_path "$here/unet.json"
progdistill distill --config "$config"
# On from 4 steps to 2 and 1, one stage at a time, with the pseudo-Huber loss.
progdistill distill --config "$config" --pretrained_teacher_model fashion-students/steps-4 \
    --output_dir fashion-students-few --start_steps 4 --end_steps 1 --stage_factor 2 --updates_per_stage 1950 \
    --learning_rate 2e-3 --loss_type huber
students="fashion-students fashion-students-few/steps-2 fashion-students-few/steps-1 --output_dir fashion-students"
# The baseline: as many forward passes as the chain to 4 steps.
data="--train_data_dir fashion-mnist.parquet --class_column label"
baseline="$here/../consistency_student.py"
python "$baseline" train --config "$config" --learning_rate 2e-3 --output_dir fashion-consistency --forward_passes 18000

features="--feature_extractor classifier,efflite0"
# The headline figures, 10,000 images and one seed; then their ranges, 2,000 images and five seeds.
samplers="--samplers progdistill,ddpm,dpmsolver++,unipc"
for images in "--num_images 10000 --seeds 0" "--num_images 2000 --seeds 0,1,2,3,4"; do
    progdistill evaluate $students $data $features $images --steps 1,2,4,8 $samplers
    python "$baseline" measure fashion-consistency --config "$config" --class_column label $features $images \
        --evaluation fashion-students
    progdistill evaluate $students $data $features $images --steps 256
done
# Elsewhere 2,000 images and one seed.
progdistill evaluate $students $data $features --steps 16,32,64,128,256 $samplers
