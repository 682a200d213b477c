"""A replica that goes token by token with every KV block by name: slow, plain, the tests' reference."""

from collections import deque
from itertools import count


class NaiveBlocks:
    """vLLM's block pool: a queue of free blocks, each of which may still hold known tokens."""

    def __init__(self, total):
        self.free = deque(range(total))
        self.holds = {}  # block -> key
        self.found = {}  # key -> block
        self.users = [0] * total

    def allocate(self):
        block = self.free.popleft()
        key = self.holds.pop(block, None)
        if key is not None:
            del self.found[key]
        self.users[block] = 1
        return block

    def fill(self, block, key):
        if key not in self.found and block not in self.holds:
            self.holds[block] = key
            self.found[key] = block

    def touch(self, block):
        if not self.users[block]:
            self.free.remove(block)
        self.users[block] += 1

    def release(self, blocks):
        known, blank = [], []
        for block in reversed(blocks):
            self.users[block] -= 1
            if not self.users[block]:
                (known if block in self.holds else blank).append(block)
        self.free.extend(known)
        self.free.extendleft(blank)


class NaiveJob:
    def __init__(self, spec):
        self.name, self.gang, self.prefix, self.prompt, self.output = spec
        self.generated = self.computed = self.cached = 0
        self.blocks = []
        self.first_token = self.end = None
        self.aborted = False


class NaiveReplica:
    """Serves jobs; `queue` is None for first come, first served, else a GangQueue builder."""

    def __init__(self, settings, queue=None):
        self.settings = settings
        self.now = 0.0
        self.queue = queue(lambda: self.now) if queue else None
        self.waiting = deque()
        self.running = []
        self.pool = NaiveBlocks(settings.kv_blocks)
        self.steps = self.preemptions = self.lost = 0
        self.log = []
        self.cuts = {}

    def serve(self, submits, aborts=()):
        """All jobs to their end: submits (time, spec), aborts (time, name)."""
        jobs = {}
        self.cuts = {name: time for time, name in aborts}
        inputs = sorted(
            [(time, n, "submit", spec) for (time, spec), n in zip(submits, count())]
            + [(time, 1_000_000, "abort", name) for time, name in aborts]
        )
        while inputs or self.running or self.waiting_count():
            if not self.running and not self.waiting_count():
                self.now = max(self.now, inputs[0][0])
            boundary = self.now
            while inputs and inputs[0][0] <= boundary:
                time, _, what, value = inputs.pop(0)
                self.now = time  # the queue sees the time at which it came
                if what == "submit":
                    jobs[value[0]] = job = NaiveJob(value)
                    self.add(job)
                else:
                    self.abort(jobs.get(value))
            self.now = boundary
            if self.running or self.waiting_count():
                self.step()
        return jobs

    def is_cut(self, job):
        return job.name in self.cuts and self.cuts[job.name] <= self.now

    def waiting_count(self):
        return len(self.waiting) if self.queue is None else len(self.queue)

    def add(self, job):
        if self.queue is None:
            self.waiting.append(job)
        else:
            self.queue.add(job, job.gang, job.name)

    def abort(self, job):
        if job is None or job.end is not None or job.aborted:
            return
        job.aborted = True
        if job in self.running:
            self.leave(job)
        elif self.queue is None:
            self.waiting.remove(job)
        if self.queue is not None:
            self.queue.end(job, job.generated)

    def leave(self, job):
        self.running.remove(job)
        self.pool.release(job.blocks)
        job.blocks = []

    def key(self, job, index):
        size = self.settings.block_size
        return (job.prefix if (index + 1) * size <= job.prompt - 1 else job.name, index)

    def grow(self, job, more):
        size = self.settings.block_size
        job.computed += more
        while len(job.blocks) * size < job.computed:
            job.blocks.append(self.pool.allocate())
        for index in range(job.computed // size):
            self.pool.fill(job.blocks[index], self.key(job, index))

    def lacking(self, job, tokens):
        return -(-tokens // self.settings.block_size) - len(job.blocks)

    def step(self):
        settings, queue = self.settings, self.queue
        if queue is not None:
            queue.reconsider()
            self.running.sort(key=queue.standing)
        left, preempted, scheduled = settings.max_batched_tokens, False, []
        index = 0
        while index < len(self.running) and left:
            job = self.running[index]
            more = min(job.prompt + job.generated - job.computed, left)
            victim = None
            while self.lacking(job, job.computed + more) > len(self.pool.free):
                victim = self.running.pop()
                self.preempt(victim)
                preempted = True
                if victim is job:
                    break
            if victim is job:
                break
            self.grow(job, more)
            left -= more
            scheduled.append((job, more))
            index += 1
        while not preempted and left and len(self.running) < settings.max_running:
            job = (self.waiting[0] if self.waiting else None) if queue is None else queue.peek()
            if job is None:
                break
            tokens = job.prompt + job.generated
            hits = []
            for block in range((tokens - 1) // settings.block_size):
                if self.key(job, block) not in self.pool.found:
                    break
                hits.append(self.pool.found[self.key(job, block)])
            in_use = sum(self.pool.users[block] > 0 for block in hits)
            if self.lacking(job, tokens) - in_use > len(self.pool.free):
                break
            if queue is None:
                self.waiting.popleft()
            else:
                queue.take()
            for block in hits:
                self.pool.touch(block)
            job.blocks = hits
            job.computed = len(hits) * settings.block_size
            if job.first_token is None:
                job.cached = job.computed
            more = min(tokens - job.computed, left)
            self.grow(job, more)
            left -= more
            self.running.append(job)
            scheduled.append((job, more))
        self.run(scheduled)

    def preempt(self, job):
        self.preemptions += 1
        self.lost += job.computed
        self.pool.release(job.blocks)
        job.blocks, job.computed = [], 0
        if self.queue is None:
            self.waiting.appendleft(job)
        else:
            self.queue.give_back(job)

    def run(self, scheduled):
        decoding = sum(more == 1 and job.generated > 0 for job, more in scheduled)
        prefill = sum(more for job, more in scheduled if more > 1 or not job.generated)
        context = sum(job.computed for job, _ in scheduled)
        self.now += self.settings.step_time.step(decoding, prefill, context)
        self.steps += 1
        self.log.append([(job.name, more) for job, more in scheduled])
        # As in vLLM: who is cut during a step leaves before its results are looked at.
        for job in sorted(filter(self.is_cut, self.running), key=lambda job: self.cuts[job.name]):
            self.abort(job)
        for job, _ in scheduled:
            if job.computed < job.prompt + job.generated or job.aborted:
                continue
            job.generated += 1
            if job.first_token is None:
                job.first_token = self.now
            if job.generated == job.output:
                job.end = self.now
                self.leave(job)
                if self.queue is not None:
                    self.queue.end(job, job.generated, True)
