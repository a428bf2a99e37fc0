#!/bin/bash
# Teacher, chain, baseline and samplers on CIFAR-10, as on Fashion-MNIST, in the current folder, on one GPU of 16 GB or more:
#
#   bash benchmarks/quality/cifar10/run.sh cifar10.parquet [SCALE]
#
# The parquet file has the columns image and label (a folder with a subfolder for each class does too). SCALE multiplies
# the updates: with 1 the teacher takes four minutes and a half of an H200, the chain to 4 steps a minute and a half;
# 10 and more make teachers worth keeping. Each command goes on where it was stopped. Figures are comparable with those
# of other copies of the images only if the copies are the same, bit by bit: JPEG copies are not the data set.
set -e
images="--train_data_dir $1" scale=${2:-1} count=${NUM_IMAGES:-10000}
here=$(dirname "$0")
config="--config $here/config.yaml $images"
updates() { python -c "print(max(4, round($1 * $scale)))"; }
features="$images --class_column label --feature_extractor classifier,efflite0 --output_dir cifar10-figures"
teacher="--pretrained_teacher_model cifar10-teacher"

progdistill train-teacher $config --model_config_name_or_path "$here/unet.json" --max_train_steps "$(updates 4200)"
baseline="$here/../consistency_student.py"
# A GPU has room beside the chain for the teacher's images, which take as long as a stage, and for the baseline: as many
# forward passes as the chain to 4 steps.
{
    progdistill evaluate cifar10-teacher $teacher $features --num_images "$count" --steps 256
    python "$baseline" train $config --output_dir cifar10-consistency --forward_passes $((11 * $(updates 573)))
} > beside.log 2>&1 &
progdistill distill $config --updates_per_stage "$(updates 573)"
# On from 4 steps to 2 and 1, one stage at a time.
progdistill distill $config --pretrained_teacher_model cifar10-students/steps-4 --output_dir cifar10-students-few \
    --start_steps 4 --end_steps 1 --stage_factor 2 --updates_per_stage "$(updates 286)"
wait $!

models="cifar10-students/steps-8 cifar10-students/steps-4 cifar10-students-few/steps-2 cifar10-students-few/steps-1"
models="$models cifar10-teacher"
progdistill evaluate $models $teacher $features --num_images "$count" --steps 1,2,4,8 \
    --samplers progdistill,ddpm,dpmsolver++,unipc
python "$baseline" measure cifar10-consistency $config --class_column label --num_images "$count" --seeds 0 --steps 1,2,4,8 \
    --feature_extractor classifier,efflite0 --evaluation cifar10-figures
# The range of the ratios.
progdistill evaluate $models $teacher $features --seeds 0,1,2,3,4 --steps 256 \
    --num_images "$((count < 2000 ? count : 2000))"
