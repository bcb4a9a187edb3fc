# Ring-0 parts of the entropy guest: plain integer instructions, called as the shim calls its routines.

.section .text.entropy_ring0, "ax"

# RDI: room for RSI pairs; each is what RDTSC and then RDTSCP gave.
.global entropy_read_tsc
entropy_read_tsc:
    rdtsc
    shl rdx, 32
    or rax, rdx
    mov [rdi], rax
    rdtscp
    shl rdx, 32
    or rax, rdx
    mov [rdi + 8], rax
    add rdi, 16
    dec rsi
    jnz entropy_read_tsc
    ret

# Counts in R8 with interrupts on, without an exit, until RSI interrupts have landed or the count is RDI.
# Answers the count. The exit before it is where instructions are counted from: all of them in ring 0.
.global entropy_spin
entropy_spin:
    xor r8d, r8d
    out 0x80, al
    sti
2:  inc r8
    cmp [{landed}], rsi
    jae 3f
    cmp r8, rdi
    jb 2b
3:  cli
    mov rax, r8
    ret

# The timer's interrupt, in either ring: writes down R8, the count of the loop it landed in.
.global entropy_timer_interrupt
entropy_timer_interrupt:
    push rax
    mov rax, [{landed}]
    cmp rax, {landings_max}
    jae 2f
    mov [{landings} + 8 * rax], r8
2:  inc rax
    mov [{landed}], rax
    pop rax
    iretq
