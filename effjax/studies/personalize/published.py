"""What the paper on Panza reports (CPAL 2026, PMLR 328), to stand beside ours.

Its models have 4 to 8 billion parameters, ours 135 million: the numbers are
another class, and its MAUVE has features of another model.
"""

# Means over the five named users: Panza-BLEU, ROUGE-L and MAUVE of Llama-3-8B.
LLAMA_3 = {
  "pretrained": (0.116, 0.198, 0.006),
  "pretrained_rag": (0.129, 0.212, 0.007),
  "full": (0.231, 0.350, 0.867),
  "full_rag": (0.227, 0.332, 0.889),
  "full_raft": (0.235, 0.352, 0.884),
  "full_raft_rag": (0.244, 0.361, 0.890),
  "rosa": (0.240, 0.355, 0.904),
  "rosa_rag": (0.216, 0.319, 0.929),
  "rosa_raft": (0.241, 0.356, 0.857),
  "rosa_raft_rag": (0.255, 0.367, 0.927),
  "lora": (0.219, 0.324, 0.740),
  "lora_rag": (0.212, 0.313, 0.856),
  "lora_raft": (0.216, 0.321, 0.669),
  "lora_raft_rag": (0.222, 0.328, 0.830),
}
# The same of David's mails alone.
DAVID = {
  "pretrained": (0.083, 0.181, 0.009),
  "pretrained_rag": (0.107, 0.212, 0.017),
  "full": (0.278, 0.460, 0.996),
  "full_rag": (0.300, 0.449, 0.984),
  "full_raft": (0.299, 0.476, 0.997),
  "full_raft_rag": (0.310, 0.494, 0.985),
  "rosa": (0.312, 0.488, 0.999),
  "rosa_rag": (0.236, 0.383, 0.982),
  "rosa_raft": (0.321, 0.491, 0.991),
  "rosa_raft_rag": (0.346, 0.509, 1.0),
  "lora": (0.260, 0.401, 0.680),
  "lora_rag": (0.257, 0.406, 0.922),
  "lora_raft": (0.243, 0.391, 0.412),
  "lora_raft_rag": (0.246, 0.404, 0.899),
}
