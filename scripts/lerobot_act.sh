#!/bin/sh
# Train LeRobot's ACT on the operator's demonstrations of one task and score it: record, lerobot-train, lerobot-eval.
#   scripts/lerobot_act.sh box-loading outputs/act_boxes        EPISODES=50 STEPS=20000 TRIALS=100 from the environment
# Each part that is done is left alone; an interrupted training goes on from its newest checkpoint.
set -eu
task=${1:-box-loading}
out=${2:-outputs/act_$task}
export HF_HUB_OFFLINE=1 PATH="$(dirname "$0")/../.venv/bin:$PATH"

wbvla collect sim --task "$task" --episodes "${EPISODES:-50}" --workers 2 --out "$out/dataset"

last=$out/train/checkpoints/last/pretrained_model
if [ ! -d "$last" ]; then
    rm -rf "$out/train"  # stopped before its first checkpoint
    lerobot-train --policy.type=act --policy.dim_model=256 --policy.n_encoder_layers=2 --policy.n_decoder_layers=2 \
        --policy.dim_feedforward=1024 --policy.n_vae_encoder_layers=2 --policy.chunk_size=20 \
        --policy.n_action_steps=20 --policy.pretrained_backbone_weights=null --policy.device=cpu \
        --policy.optimizer_lr=1e-4 --policy.optimizer_lr_backbone=1e-4 \
        --policy.push_to_hub=false --dataset.repo_id="local/$task" --dataset.root="$out/dataset" \
        --dataset.video_backend=pyav --dataset.use_imagenet_stats=false --output_dir="$out/train" \
        --steps="${STEPS:-20000}" --save_freq=1000 --batch_size=16 --num_workers=1 --wandb.enable=false
else
    lerobot-train --config_path="$last/train_config.json" --resume=true --steps="${STEPS:-20000}"
fi

lerobot-eval --policy.path="$last" --policy.device=cpu --env.type=wbvla --env.task="$task" \
    --env.dataset="$out/dataset" --eval.n_episodes="${TRIALS:-100}" --eval.batch_size=1 --seed=0 --output_dir="$out/score"
grep -A8 '"overall"' "$out/score/eval_info.json"
