"""Training-step time, peak memory and compile time of the peer (PyTorch AMP fp16 + GradScaler + fused optimizer).

usage: tools/peer_capture.py OUT.json MODE[,MODE] NAME ...   modes: fp32 tf32 eager compile graphs autotune capture capture_cudnn
capture: torch.compile and the whole step (scaler and fused optimizer included) in one CUDA graph, the best that PyTorch allows;
capture_cudnn: the same with cuDNN's attention preferred.
"""
import gc, json, sys, time, warnings, logging
warnings.filterwarnings("ignore")
import torch
F = torch.nn.functional
dev = "cuda"

def make(name):
    import torchvision.models as tv, transformers as tf
    if name == "mlp":
        n = torch.nn; m = n.Sequential(n.Flatten(), n.Linear(784, 512), n.ReLU(), n.Linear(512, 512), n.ReLU(), n.Linear(512, 10))
        x = torch.randn(128, 1, 28, 28); y = torch.randint(0, 10, (128,)); opt = "sgd"; unit = 128
    elif name == "lenet":
        n = torch.nn; m = n.Sequential(n.Conv2d(1, 32, 3, padding=1), n.ReLU(), n.MaxPool2d(2), n.Conv2d(32, 64, 3, padding=1), n.ReLU(), n.MaxPool2d(2), n.Flatten(), n.Linear(3136, 128), n.ReLU(), n.Linear(128, 10))
        x = torch.randn(128, 1, 28, 28); y = torch.randint(0, 10, (128,)); opt = "sgd"; unit = 128
    elif name == "resnet50":
        m = tv.resnet50(weights=None); x = torch.randn(256, 3, 224, 224).to(memory_format=torch.channels_last); m = m.to(memory_format=torch.channels_last); y = torch.randint(0, 1000, (256,)); opt = "sgd"; unit = 256
    elif name == "vit":
        m = tv.vit_b_16(weights=None); x = torch.randn(128, 3, 224, 224); y = torch.randint(0, 1000, (128,)); opt = "adamw"; unit = 128
    elif name == "bert":
        c = tf.BertForMaskedLM(tf.BertConfig(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)); x = torch.randint(0, 30000, (64, 128)); y = torch.randint(0, 30000, (64, 128)); opt = "adamw"; unit = 64
        class W(torch.nn.Module):
            def __init__(s): super().__init__(); s.m = c
            def forward(s, x): return s.m(x).logits.flatten(0, 1)
        m = W(); y = y.flatten()
    elif name == "gpt2":
        c = tf.GPT2LMHeadModel(tf.GPT2Config(resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, use_cache=False)); x = torch.randint(0, 50000, (16, 1024)); y = torch.randint(0, 50000, (16, 1024)); opt = "adamw"; unit = 16 * 1024
        class W(torch.nn.Module):
            def __init__(s): super().__init__(); s.m = c
            def forward(s, x): return s.m(x, use_cache=False).logits.flatten(0, 1)
        m = W(); y = y.flatten()
    return m.to(dev).train(), x.to(dev), y.to(dev), opt, unit

def run(name, mode):
    torch.manual_seed(0); torch._dynamo.reset(); gc.collect(); torch.cuda.empty_cache(); torch.cuda.reset_peak_memory_stats()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = mode != "fp32"
    torch.backends.cudnn.benchmark = True
    m, x, y, on, unit = make(name)
    amp = mode not in ("fp32", "tf32")
    ps = list(m.parameters())
    opt = torch.optim.SGD(ps, 0.01, momentum=0.9, fused=True) if on == "sgd" else torch.optim.AdamW(ps, 1e-4, fused=True, capturable=mode.startswith("capture"))
    scaler = torch.amp.GradScaler("cuda", enabled=amp)
    def loss_of(x, y):
        with torch.autocast("cuda", torch.float16, enabled=amp): return F.cross_entropy(m(x), y)
    f = loss_of
    if mode == "compile" or mode.startswith("capture"): f = torch.compile(loss_of)
    torch.backends.cuda.enable_flash_sdp(mode != "capture_cudnn"); torch.backends.cuda.enable_mem_efficient_sdp(mode != "capture_cudnn")
    if mode == "graphs": f = torch.compile(loss_of, mode="reduce-overhead")
    if mode == "autotune": f = torch.compile(loss_of, mode="max-autotune")
    def step():
        loss = f(x, y); scaler.scale(loss).backward(); scaler.step(opt); scaler.update(); opt.zero_grad(set_to_none=True); return loss
    if mode.startswith("capture"):
        t = time.time(); side = torch.cuda.Stream(); side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(4): l0 = step()
        torch.cuda.current_stream().wait_stream(side); l0 = l0.item(); torch.cuda.synchronize(); opt.zero_grad(set_to_none=True)
        g = torch.cuda.CUDAGraph()
        with torch.cuda.graph(g):
            static = f(x, y); scaler.scale(static).backward(); scaler.step(opt); scaler.update()
        captured = time.time() - t
        def step(): g.replay(); return static
    t = time.time(); l0 = step().item(); torch.cuda.synchronize(); first = time.time() - t
    for _ in range(5): step()
    torch.cuda.synchronize(); t = time.time(); step(); torch.cuda.synchronize(); one = time.time() - t
    n = max(10, min(200, int(3 / max(one, 1e-4)))); ts = []
    for _ in range(n):
        a = torch.cuda.Event(enable_timing=True); b = torch.cuda.Event(enable_timing=True); a.record(); step(); b.record(); ts.append((a, b))
    t = time.time(); torch.cuda.synchronize()
    v = sorted(a.elapsed_time(b) for a, b in ts)
    t = time.time()
    for _ in range(n): step()
    torch.cuda.synchronize(); wall = (time.time() - t) / n * 1e3
    return dict(model=name, mode=mode, ms=round(v[len(v)//2], 4), wall_ms=round(wall, 4), per_s=round(unit / wall * 1e3, 1), first_s=round(first, 1), peak_mib=round(torch.cuda.max_memory_allocated()/2**20), reserved_mib=round(torch.cuda.max_memory_reserved()/2**20), loss0=round(l0, 4))

out, modes, names = sys.argv[1], sys.argv[2].split(","), sys.argv[3:]
rows = []
for n in names:
    for mode in modes:
        try: r = run(n, mode)
        except Exception as e: r = dict(model=n, mode=mode, error=str(e)[:200])
        rows.append(r); print(json.dumps(r), flush=True); json.dump(rows, open(out, "w"))
