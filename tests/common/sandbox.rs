//! System calls that the kernel refuses to a process, as in a sandbox.

#![allow(dead_code)] // each test program uses its own part of this

/// Makes a system call fail with an error, in all threads of this process and for good. The
/// processes that it starts from now on have the rule too.
pub fn refuse(system_call: libc::c_long, error: libc::c_int) {
    let step = |code: u32, jump_if_not: u8, value: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt: 0,
        jf: jump_if_not,
        k: value,
    };
    let number = u32::try_from(system_call).unwrap();
    let refused = libc::SECCOMP_RET_ERRNO | u32::try_from(error).unwrap();
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0), // the number of the call
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, number),
        step(libc::BPF_RET | libc::BPF_K, 0, refused),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: 4,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: `prctl` takes numbers here; `seccomp` reads `program` and the steps that it points
    // to, which live until the calls have returned.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_SET_MODE_FILTER;
        let flags = libc::SECCOMP_FILTER_FLAG_TSYNC;
        let done = libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program);
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }
}
