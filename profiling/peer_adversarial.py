"""The other side of profiling.adversarial_step: the same round as a loop in torch."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from profiling import bench
from rgjax.config import AdversarialConfig, DiscriminatorConfig
from rgjax.models.discriminator import windows


class Generator(nn.Module):
    """An LSTM over token vectors, and a linear layer."""

    def __init__(self, params: dict):
        super().__init__()
        given = {name: torch.tensor(value) for name, value in params.items()}
        (size, width), hidden = given["tokens"].shape, given["w_hidden"].shape[0]
        self.tokens, self.lstm, self.out = nn.Embedding(size, width), nn.LSTM(width, hidden, batch_first=True), nn.Linear(hidden, size)
        i, f, o, g = range(4)
        order = lambda w: torch.cat([w.split(hidden, dim=-1)[k] for k in (i, f, g, o)], dim=-1)  # torch's own order of gates
        with torch.no_grad():
            self.tokens.weight.copy_(given["tokens"])
            self.lstm.weight_ih_l0.copy_(order(given["w_in"]).T)
            self.lstm.weight_hh_l0.copy_(order(given["w_hidden"]).T)
            self.lstm.bias_ih_l0.copy_(order(given["b_in"]))
            self.lstm.bias_hh_l0.zero_()
            self.out.weight.copy_(given["output"].T)
            self.out.bias.copy_(given["b_vocab"])

    def log_probs(self, texts: torch.Tensor) -> torch.Tensor:
        """log p of each token [B, T]."""
        fed = functional.pad(texts[:, :-1], (1, 0))
        logits = self.out(self.lstm(self.tokens(fed))[0])
        return functional.log_softmax(logits, -1).gather(-1, texts[..., None])[..., 0]

    @torch.no_grad()
    def completed(self, begun: torch.Tensor, length: int) -> torch.Tensor:
        """Texts [B, length] that go on from `begun` [B, t]."""
        found = begun
        hidden, state = self.lstm(self.tokens(functional.pad(begun, (1, 0))))
        while found.shape[1] < length:
            token = torch.multinomial(functional.softmax(self.out(hidden[:, -1]), -1), 1)
            found = torch.cat([found, token], dim=1)
            hidden, state = self.lstm(self.tokens(token), state)
        return found

    def relaxed(self, rows: int, length: int, heat: float) -> torch.Tensor:
        """Straight-through one-hot rows [B, length, V] of drawn texts, each of which is fed to the next step."""
        found, state, fed = [], None, self.tokens(self.tokens.weight.new_zeros((rows, 1), dtype=torch.long))
        for _ in range(length):
            hidden, state = self.lstm(fed, state)
            found.append(functional.gumbel_softmax(self.out(hidden), heat, hard=True))
            fed = found[-1] @ self.tokens.weight
        return torch.cat(found, dim=1)


class Judge(nn.Module):
    """The CNN with its highway layer."""

    def __init__(self, params: dict, config: DiscriminatorConfig):
        super().__init__()
        self.config, widths = config, windows(config.d_windows)
        given = nn.ParameterDict({name: torch.tensor(v) for name, v in params.items() if not isinstance(v, dict)})
        self.given = given
        filters = [torch.tensor(params["filters"][f"of_{n}"]).reshape(n, config.d_width, -1).permute(2, 1, 0) for n in widths]
        self.filters = nn.ParameterList([w.contiguous() for w in filters])

    def forward(self, texts: torch.Tensor) -> torch.Tensor:
        """Verdicts [B] on token ids [B, T], or rows of weights over the vocabulary [B, T, V]."""
        p = self.given
        x = (p["tokens"][texts] if texts.dim() == 2 else texts @ p["tokens"]).transpose(1, 2)
        found = torch.cat([functional.conv1d(x, w, p["b_in"][i]).relu().amax(-1) for i, w in enumerate(self.filters)], dim=-1)
        if self.config.d_highway:
            gate = torch.sigmoid(found @ p["w_gate"] + p["b_out"])
            found = gate * torch.relu(found @ p["w_new"]) + (1 - gate) * found
        return (functional.dropout(found, self.config.d_dropout, self.training) @ p["w_verdict"])[:, 0]


class Theirs:
    """A round; what it does is what `rgjax.train.adversarial.make_round` does for binary cross entropy."""

    def __init__(self, gan: AdversarialConfig, judge: DiscriminatorConfig, params: dict, real: np.ndarray):
        torch.manual_seed(0)
        self.gan, device = gan, bench.torch_device()
        self.generator, self.judge = Generator(params["generator"]).to(device), Judge(params["discriminator"], judge).to(device)
        self.real = torch.as_tensor(real).long().to(device)
        self.of_g = torch.optim.Adam(self.generator.parameters(), gan.g_learning_rate)
        self.of_d = torch.optim.Adam(self.judge.parameters(), gan.d_learning_rate)

    @torch.no_grad()
    def told(self, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As ours."""
        given = torch.as_tensor(texts).long().to(self.real.device)
        self.judge.eval()
        return bench.as_numpy(self.generator.log_probs(given)), bench.as_numpy(self.judge(given))

    def __call__(self) -> torch.Tensor:
        batches, (rows, length) = iter(self.real), self.real.shape[1:]
        nothing = self.real.new_zeros((rows, 0))
        self.judge.train()
        for _ in range(self.gan.d_steps):
            real, written = self.judge(next(batches)), self.judge(self.generator.completed(nothing, length))
            self.of_d.zero_grad()
            (functional.softplus(-real) + functional.softplus(written)).mean().backward()
            self.of_d.step()
        self.judge.eval()
        for _ in range(self.gan.g_steps):
            loss = self.by_gumbel(rows, length) if self.gan.estimator == "gumbel" else self.by_reinforce(self.generator.completed(nothing, length))
            self.of_g.zero_grad()
            loss.backward(inputs=list(self.generator.parameters()))  # the judge's gradients are nobody's
            nn.utils.clip_grad_norm_(self.generator.parameters(), self.gan.g_clip)
            self.of_g.step()
        return loss.detach()

    def by_gumbel(self, rows: int, length: int) -> torch.Tensor:
        """The generator's loss, whose gradient runs through the texts."""
        return -functional.softplus(self.judge(self.generator.relaxed(rows, length, self.gan.heat))).mean()

    def by_reinforce(self, written: torch.Tensor) -> torch.Tensor:
        """The generator's loss on texts [B, T] of its own."""
        rewards = self.rewards(written)
        if self.gan.baseline == "batch":
            rewards = rewards - (rewards.sum(0) - rewards) / (len(written) - 1)
        return -(rewards * self.generator.log_probs(written)).mean()

    @torch.no_grad()
    def rewards(self, written: torch.Tensor) -> torch.Tensor:
        """The mean verdict over completions of what each token ends [B, T]."""
        length, total = written.shape[1], torch.zeros(written.shape, device=written.device)
        for _ in range(self.gan.completions):
            for t in range(1, length):
                total[:, t - 1] += torch.sigmoid(self.judge(self.generator.completed(written[:, :t], length)))
        total[:, -1] = torch.sigmoid(self.judge(written)) * self.gan.completions
        return total / self.gan.completions
