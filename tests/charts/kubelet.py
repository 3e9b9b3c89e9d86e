"""A stand-in for a kubelet and its container engine: runs one pod as its object says, without a cluster or an image.

Containers get a root of their own, read-only where the pod says so, with the machine's libraries and what their image
would have in /usr/local/bin; the volumes at their paths, laid out and owned as a kubelet does it; the pod's user, groups,
variables and arguments; no capability. All are in one network of their own, and in one space of processes: what is left
of them ends with this program. What a pod asks for that is not played here is an error.

Usage: kubelet.py SCENE. Answers commands, one JSON object a line. Ends with 77 where the kernel lets nobody do this.
"""
import ctypes
import fcntl
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time

LIBC = ctypes.CDLL(None, use_errno=True)
NEW_MOUNTS, NEW_USER, NEW_PROCESSES, NEW_NETWORK = 0x20000, 0x10000000, 0x20000000, 0x40000000
READ_ONLY, NO_SUID, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 2, 32, 4096, 16384, 1 << 18
DROP_BOUND, NO_NEW_PRIVILEGES, DEATH_SIGNAL = 24, 38, 1


def must(result, what):
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def mount(source, target, kind=None, flags=0, data=None):
    text = lambda value: value.encode() if value else None
    must(LIBC.mount(text(source), text(target), text(kind), ctypes.c_ulong(flags), text(data)), f"mount {target}")


def bind(source, target, read_only):
    mount(source, target, flags=BIND | RECURSIVE)
    if read_only:
        mount(None, target, flags=REMOUNT | BIND | READ_ONLY | NO_SUID)


def write(path, text, mode=0o644):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)


class Pod:
    def __init__(self, scene, root):
        self.scene, self.spec, self.root = scene, scene["pod"]["spec"], root
        self.dir = os.path.join(scene["dir"], "pod")
        self.running = {}
        context = self.spec["securityContext"]
        self.user, self.group = (context["runAsUser"], context["fsGroup"]) if root else (0, 0)
        os.makedirs(self.dir, exist_ok=True)
        mount("pod", self.dir, "tmpfs", NO_SUID, "mode=755")
        self.volumes = {volume["name"]: self.volume(volume) for volume in self.spec["volumes"]}

    # Volumes, as a kubelet makes them.

    def volume(self, volume):
        name, kind = volume["name"], next(key for key in volume if key != "name")
        path, source = os.path.join(self.dir, "volumes", name), volume[kind]
        if kind == "persistentVolumeClaim":
            path = self.scene["claims"][source["claimName"]]
            self.hand_to_group(path, 0o660, self.spec["securityContext"].get("fsGroupChangePolicy", "Always"))
            return path
        os.makedirs(path)
        if kind == "emptyDir":
            os.chmod(path, 0o777)
            self.hand_to_group(path, 0o660, "Always")
            return path
        if kind not in ("configMap", "secret"):
            raise NotImplementedError(f"volumes of the kind {kind}")
        kinds = self.scene["configMaps" if kind == "configMap" else "secrets"]
        data = kinds[source["name" if kind == "configMap" else "secretName"]]
        items = source.get("items") or [{"key": key, "path": key} for key in data]
        # Each key is a link to `..data/KEY`, and `..data` one to a directory that is named after the time.
        stamp = "..2026_01_31_12_00_00.0000000001"
        os.makedirs(os.path.join(path, stamp))
        for item in items:
            write(os.path.join(path, stamp, item["path"]), data[item["key"]], source.get("defaultMode", 0o644))
            os.symlink(f"..data/{item['path']}", os.path.join(path, item["path"]))
        os.symlink(stamp, os.path.join(path, "..data"))
        self.hand_to_group(path, 0o440, "Always")
        return path

    def hand_to_group(self, path, files, policy):
        """What fsGroup does: `OnRootMismatch` looks at the volume's root alone."""
        bits = files | 0o110 | 0o2000
        found = os.stat(path)
        if policy == "OnRootMismatch" and found.st_gid == self.group and found.st_mode & bits == bits:
            return
        for directory, below, names in os.walk(path):
            for each in [directory, *(os.path.join(directory, name) for name in names + below)]:
                os.lchown(each, -1, self.group)
                if not os.path.islink(each):
                    mode = os.lstat(each).st_mode
                    more = bits if os.path.isdir(each) else files
                    os.chmod(each, (mode & 0o7777) | more)

    # Containers.

    def container(self, name):
        every = self.spec.get("initContainers", []) + self.spec["containers"]
        return next(each for each in every if each["name"] == name)

    def build_root(self, container):
        root = os.path.join(self.dir, "roots", container["name"])
        os.makedirs(root)
        mount("root", root, "tmpfs", NO_SUID, "mode=755")
        for name in ("usr", "bin", "sbin", "lib", "lib64"):
            if os.path.islink(f"/{name}"):
                os.symlink(os.readlink(f"/{name}"), f"{root}/{name}")
            elif os.path.isdir(f"/{name}"):
                os.makedirs(f"{root}/{name}")
                bind(f"/{name}", f"{root}/{name}", True)
        for name in ("etc/ssl", "proc", "dev", "tmp", "run"):
            os.makedirs(f"{root}/{name}")
        bind("/etc/ssl", f"{root}/etc/ssl", True)
        mount("proc", f"{root}/proc", "proc")
        for name in ("null", "zero", "random", "urandom"):
            write(f"{root}/dev/{name}", "")
            bind(f"/dev/{name}", f"{root}/dev/{name}", False)
        for name, text in self.scene.get("etc", {}).items():
            write(f"{root}/etc/{name}", text)
        mount("image", f"{root}/usr/local/bin", "tmpfs", NO_SUID, "mode=755")
        for name, path in self.scene["images"][container["name"]].items():
            write(f"{root}/usr/local/bin/{name}", "")
            bind(path, f"{root}/usr/local/bin/{name}", True)
        for at in container["volumeMounts"]:
            os.makedirs(root + at["mountPath"], exist_ok=True)
            bind(self.volumes[at["name"]], root + at["mountPath"], at.get("readOnly", False))
        if container["securityContext"].get("readOnlyRootFilesystem"):
            mount(None, root, flags=REMOUNT | BIND | READ_ONLY | NO_SUID)
        return root

    def environment(self, container):
        of = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        for each in container.get("env", []):
            if "value" in each:
                of[each["name"]] = each["value"]
            else:
                wanted = each["valueFrom"]["secretKeyRef"]
                of[each["name"]] = self.scene["secrets"][wanted["name"]][wanted["key"]]
        return of

    def become(self, root):
        """In the child: into the container, as its user, for good."""
        os.chroot(root)
        os.chdir("/")
        for capability in range(64):
            LIBC.prctl(DROP_BOUND, capability, 0, 0, 0)
        if self.root:
            os.setgroups([self.group])
            os.setresgid(self.user, self.user, self.user)
            os.setresuid(self.user, self.user, self.user)
        must(LIBC.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0), "no_new_privs")

    def start(self, container):
        name = container["name"]
        root = self.running[name]["root"] if name in self.running else self.build_root(container)
        argv = container.get("command", self.scene["entrypoints"].get(name, [])) + container.get("args", [])
        log = open(os.path.join(self.scene["dir"], f"{name}.log"), "ab")
        process = subprocess.Popen(argv, env=self.environment(container), stdin=subprocess.DEVNULL, stdout=log,
                                   stderr=log, close_fds=True, preexec_fn=lambda: self.become(root), cwd="/")
        self.running[name] = {"process": process, "root": root}

    def probe(self, container, which):
        """What a probe asks, once."""
        probe = container[which]
        if "exec" in probe:
            said = self.exec(container["name"], probe["exec"]["command"])
            return {"ok": said["code"] == 0, **said}
        ports = {each["name"]: each["containerPort"] for each in container["ports"]}
        try:
            if "tcpSocket" in probe:
                socket.create_connection(("127.0.0.1", ports[probe["tcpSocket"]["port"]]), 1).close()
                return {"ok": True}
            wanted = probe["httpGet"]
            asked = http.client.HTTPConnection("127.0.0.1", ports[wanted["port"]], timeout=5)
            asked.request("GET", wanted["path"])
            answer = asked.getresponse()
            return {"ok": 200 <= answer.status < 400, "status": answer.status, "body": answer.read().decode()}
        except OSError as error:
            return {"ok": False, "error": str(error)}

    def await_start(self, container):
        probe = container.get("startupProbe")
        if not probe:
            return
        deadline = time.monotonic() + probe["periodSeconds"] * probe["failureThreshold"]
        while not self.probe(container, "startupProbe")["ok"]:
            process = self.running[container["name"]]["process"]
            if process.poll() is not None:
                raise RuntimeError(f"{container['name']} ended with {process.returncode}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{container['name']} has not started in time")
            time.sleep(0.1)

    def run(self):
        for container in self.spec.get("initContainers", []):
            assert container["restartPolicy"] == "Always", "an init container that ends"
            self.start(container)
            self.await_start(container)
        for container in self.spec["containers"]:
            self.start(container)
        for container in self.spec["containers"]:
            self.await_start(container)

    def end(self):
        """In the order of Kubernetes: what is no sidecar first."""
        ended, deadline = {}, time.monotonic() + self.spec["terminationGracePeriodSeconds"]
        for group in (self.spec["containers"], self.spec.get("initContainers", [])[::-1]):
            for name in (each["name"] for each in group):
                process, began = self.running[name]["process"], time.monotonic()
                process.send_signal(signal.SIGTERM)
                try:
                    code = process.wait(max(0.1, deadline - began))
                except subprocess.TimeoutExpired:
                    process.kill()
                    code = "killed"
                ended[name] = {"code": code, "seconds": time.monotonic() - began}
        return ended

    def exec(self, name, argv):
        root = self.running[name]["root"]
        done = subprocess.run(argv, env=self.environment(self.container(name)), stdin=subprocess.DEVNULL, capture_output=True,
                              preexec_fn=lambda: self.become(root), cwd="/", timeout=60, check=False)
        return {"code": done.returncode, "out": done.stdout.decode(), "err": done.stderr.decode()}

    def get(self, port, path, headers):
        """As an agent elsewhere in the cluster: to a port of the pod."""
        asked = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        asked.request("GET", path, headers=headers)
        answer = asked.getresponse()
        return {"status": answer.status, "headers": dict(answer.getheaders()), "body": answer.read().decode()}

    def answer(self, asked):
        match asked.pop("do"):
            case "probe":
                return self.probe(self.container(asked["container"]), asked["which"])
            case "exec":
                return self.exec(asked["container"], asked["argv"])
            case "get":
                return self.get(**asked)
            case "kill":
                process = self.running[asked["container"]]["process"]
                process.kill()
                process.wait()
                self.start(self.container(asked["container"]))
                return {}
            case "end":
                return self.end()
        raise NotImplementedError


def enter(root):
    """Into spaces of our own, this program's child the first process of them."""
    parts = NEW_MOUNTS | NEW_NETWORK | NEW_PROCESSES
    user, group = os.getuid(), os.getgid()
    try:
        must(LIBC.unshare(parts if root else parts | NEW_USER), "unshare")
        if not root:
            for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
                with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                    file.write(text)
        child = os.fork()
        if child:
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            os._exit(code if code >= 0 else 1)
        LIBC.prctl(DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        mount(None, "/", flags=RECURSIVE | PRIVATE)
        mount("proc", "/proc", "proc")
    except OSError as error:
        # Not allowed, or none left to be had: the kernel says either.
        print(error, file=sys.stderr)
        os._exit(77)
    with socket.socket() as any_socket:
        up = struct.pack("16sh", b"lo", 0x1 | 0x40)
        fcntl.ioctl(any_socket, 0x8914, up)


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        scene = json.load(file)
    root = os.getuid() == 0
    enter(root)
    for argv in scene.get("beside", []):
        subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=open(os.path.join(scene["dir"], "beside.log"), "ab"),
                         stderr=subprocess.STDOUT)
    pod = Pod(scene, root)
    pod.run()
    print(json.dumps({"started": True}), flush=True)
    for line in sys.stdin:
        try:
            said = pod.answer(json.loads(line))
        except (OSError, KeyError, StopIteration, http.client.HTTPException) as error:
            said = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
