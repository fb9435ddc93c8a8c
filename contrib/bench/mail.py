"""Makes mail to measure with, and changes it as mail readers and delivery agents do. Standard library only.

The same seed makes the same tree. Sizes follow ordinary mailboxes (half under 6 KB, one in a hundred over 160 KB),
contents are headers with random ids, text from a small vocabulary, and now and then an attachment that does not
compress.
"""
import base64
import os
import random

# Share of the messages, and the size in bytes up to which they go; between them, straight lines in the logarithm.
SIZES = [(0.0, 600), (0.5, 5_700), (0.9, 22_700), (0.99, 166_000), (0.999, 600_000), (1.0, 2_900_000)]
FOLDERS = ["", ".Archive", ".Lists.dev", ".Sent", ".Lists.users", ".Work", ".Family", ".Entw&APw-rfe"]
BEGUN = 1_500_000_000


class Mail:
    """A source of messages."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.count = 0
        words = ["".join(self.random.choices("etaoinshrdlucmfwyp", k=self.random.randint(2, 9))) for _ in range(4000)]
        lines = []
        for _ in range(40_000):
            lines.append(" ".join(self.random.choices(words, k=self.random.randint(4, 12))))
        self.text = "\n".join(lines).encode()
        noise = base64.b64encode(self.random.randbytes(3_000_000))
        self.noise = b"\n".join(noise[at : at + 76] for at in range(0, len(noise), 76))

    def size(self):
        share = self.random.random()
        for (low, small), (high, large) in zip(SIZES, SIZES[1:]):
            if share <= high:
                return int(small * (large / small) ** ((share - low) / (high - low)))
        return SIZES[-1][1]

    def message(self):
        """The bytes of one message."""
        size, ident = self.size(), self.random.randbytes(12).hex()
        host = self.random.choice(["lists", "mail", "mx1", "smtp"]) + ".example.org"
        head = (
            f"Return-Path: <bounce-{ident[:8]}@{host}>\nReceived: from {host} by mx.example.net with ESMTPS id {ident}\n"
            f"DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=k1; b={self.random.randbytes(64).hex()}\n"
            f"From: Somebody {ident[:3]} <some.{ident[:3]}@example.org>\nTo: me@example.net\n"
            f"Subject: Re: {ident[3:9]} again\nMessage-ID: <{ident}@{host}>\nMIME-Version: 1.0\n\n"
        ).encode()
        left = max(0, size - len(head))
        # Large messages are large because of what is attached to them.
        pool = self.noise if size > 60_000 else self.text
        at = self.random.randrange(max(1, len(pool) - left))
        return head + pool[at : at + left] + b"\n"

    def write(self, folder, part, flags):
        """Delivers one message; its name and its time are Dovecot's."""
        body = self.message()
        self.count += 1
        when = BEGUN + self.count * 600
        info = f":2,{flags}" if part == "cur" else ""
        path = os.path.join(folder, part, f"{when}.M{self.count}P{self.random.randint(2, 30000)}.mx,S={len(body)}{info}")
        with open(path, "xb") as file:
            file.write(body)
        os.utime(path, (when, when))
        return path


def make(root, count, seed):
    """Makes a Maildir++ of `count` messages; the first folder has half of them."""
    mail = Mail(seed)
    folders = [os.path.join(root, name) for name in FOLDERS]
    for folder in folders:
        for part in ("cur", "new", "tmp"):
            os.makedirs(os.path.join(folder, part))
    weights = [1 / (at + 1) for at in range(len(folders))]
    for _ in range(count):
        folder = mail.random.choices(folders, weights)[0]
        part = "new" if mail.random.random() < 0.04 else "cur"
        flags = "".join(letter for letter, share in (("F", 0.03), ("R", 0.2), ("S", 0.8)) if mail.random.random() < share)
        mail.write(folder, part, flags)
    return mail


def change(root, mail, count):
    """Delivers `count` messages to INBOX, and sets or clears F on as many others."""
    for _ in range(count):
        mail.write(root, "new", "")
    folder = os.path.join(root, "cur")
    for name in mail.random.sample(sorted(os.listdir(folder)), count):
        unique, _, flags = name.partition(":2,")
        flags = "".join(sorted(set(flags) ^ {"F"}))
        os.rename(os.path.join(folder, name), os.path.join(folder, f"{unique}:2,{flags}"))
