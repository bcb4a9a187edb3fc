# The probe guests. Position-independent; copied to where a subject starts.
#
# Ports: 0x10 START, 0x11 END, 0x12 a vector was taken (its number in AL), 0x20 a question, 0x21 an output.
# A program that says START has RSI = where its counted loop begins. The loop is three instructions of three, three and two
# bytes, so RIP - RSI and RBX (rounds) say how many of its instructions were executed. RCX rounds are made before END.

.pushsection .rodata.lockstep_probes, "a"

.macro lockstep_program name
    .global lockstep_probe_\name
    .hidden lockstep_probe_\name
    lockstep_probe_\name:
.endm

.macro lockstep_end name
    .global lockstep_probe_\name\()_end
    .hidden lockstep_probe_\name\()_end
    lockstep_probe_\name\()_end:
.endm

.macro lockstep_start
    lea rsi, [rip + 2f]
    xor ebx, ebx
    out 0x10, al
.endm

.macro lockstep_counted_loop
2:  inc rbx
    dec rcx
    jnz 2b
    out 0x11, al
    hlt
.endm

# A while with interrupts disabled, so that a window cannot be there from the beginning.
.macro lockstep_wait
    mov edx, 40
3:  dec edx
    jnz 3b
.endm

# Counts, and nothing else.
lockstep_program count
    lockstep_start
    lockstep_counted_loop
lockstep_end count

# Counts to 200, R9 times, with a repeated string store of 1500 bytes to [R8] before each: more than one batch of an emulator.
lockstep_program repeat
    lockstep_start
4:  mov rdi, r8
    mov ecx, 1500
    rep stosb
    mov ecx, 200
5:  inc rbx
    dec ecx
    jnz 5b
    dec r9
    jnz 4b
2:  out 0x11, al
    hlt
lockstep_end repeat

# A window that opens by STI: after the instruction that follows it.
lockstep_program window_sti
    lockstep_start
    lockstep_wait
    sti
    nop
    lockstep_counted_loop
lockstep_end window_sti

# The same, where the instruction behind STI writes to [R8]: if the host has to map that page first, the guest is left and
# entered again inside the shadow of STI.
lockstep_program window_shadow
    lockstep_start
    lockstep_wait
    sti
    mov [r8], rbx
    lockstep_counted_loop
lockstep_end window_shadow

# A window that opens by POPFQ: at once.
lockstep_program window_popf
    lockstep_start
    lockstep_wait
    push 0x202
    popfq
    lockstep_counted_loop
lockstep_end window_popf

# A window that opens by IRETQ to ring 3: there at once.
lockstep_program window_iret
    lockstep_start
    lockstep_wait
    mov r12, rsp
    push 0x23
    push r12
    push 0x202
    push 0x2b
    push rsi
    iretq
    lockstep_counted_loop
lockstep_end window_iret

# A guest that idles: STI keeps the window shut over the HLT that follows.
lockstep_program window_halt
    lockstep_start
    lockstep_wait
    sti
    hlt
    lockstep_counted_loop
lockstep_end window_halt

# RCX rounds over sixteen vector registers, loaded from [R8] and stored to [R9].
lockstep_program vector
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movdqu xmm\n, [r8 + 16 * \n]
    .endr
    out 0x10, al
2:  paddq xmm0, xmm1
    pxor xmm1, xmm2
    paddq xmm2, xmm3
    pxor xmm3, xmm4
    paddq xmm4, xmm5
    pxor xmm5, xmm6
    paddq xmm6, xmm7
    pxor xmm7, xmm8
    paddq xmm8, xmm9
    pxor xmm9, xmm10
    paddq xmm10, xmm11
    pxor xmm11, xmm12
    paddq xmm12, xmm13
    pxor xmm13, xmm14
    paddq xmm14, xmm15
    pxor xmm15, xmm0
    dec rcx
    jnz 2b
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movdqu [r9 + 16 * \n], xmm\n
    .endr
    out 0x11, al
    hlt
lockstep_end vector

# Writes RCX words, the first to [R8], each R9 bytes further.
lockstep_program touch
2:  mov [r8], rcx
    add r8, r9
    dec rcx
    jnz 2b
    out 0x11, al
    hlt
lockstep_end touch

# Computes over 32 KiB at [R8], asks the outside, and says what it came to; for ever.
lockstep_program mixed
2:  mov ecx, 64
3:  add rax, rbx
    xor rbx, rax
    rol rbx, 7
    mov rdx, rax
    and edx, 0x7ff8
    add [r8 + rdx], rbx
    dec ecx
    jnz 3b
    in eax, 0x20
    add rbx, rax
    mov eax, ebx
    out 0x21, eax
    jmp 2b
lockstep_end mixed

# Exits for ever.
lockstep_program exits
2:  out 0x10, al
    jmp 2b
lockstep_end exits

# Never exits.
lockstep_program spin
    out 0x10, al
2:  jmp 2b
lockstep_end spin

.popsection
